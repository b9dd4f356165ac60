"""Score every distinct pair once, in an order in which prompts share their beginnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rgpt_batch.errors import EngineOutputError
from rgpt_batch.records import Prompt, TokenizedPair

_PromptT = TypeVar("_PromptT", bound=Prompt)
_Values = npt.NDArray[np.float32]


def score_distinct(
    pairs: Sequence[_PromptT], run: Callable[[Sequence[_PromptT], bool], list[_Values]]
) -> tuple[list[_Values], int]:
    """Score pairs with an engine that reads a prefix cache.

    Args:
        pairs: All of one kind.
        run: Takes pairs, and whether they may read the prefix cache. Returns the logprobs or logits
            of each; fewer logprobs than the query has tokens where the cache hid a row.

    Returns:
        One entry per pair, in order; and the number of pairs that were computed once more without
        the cache, because it had hidden a row.

    Raises:
        EngineOutputError: A row is missing although the cache was not read.
    """
    repeats: dict[tuple[bytes, int], list[int]] = {}
    for index, pair in enumerate(pairs):
        repeats.setdefault((pair.token_ids.tobytes(), _boundary(pair)), []).append(index)
    # Sorted by their bytes, prompts with the same beginning follow each other. So the beginning is
    # still in the cache when the next one needs it.
    groups = [repeats[key] for key in sorted(repeats)]
    distinct = [pairs[group[0]] for group in groups]

    answers = run(distinct, True)
    missed = [i for i, pair in enumerate(distinct) if _lacks_rows(pair, answers[i])]
    if missed:
        for i, values in zip(missed, run([distinct[i] for i in missed], False), strict=True):
            if _lacks_rows(distinct[i], values):
                raise EngineOutputError(
                    f"vLLM computed {len(values)} of {distinct[i].num_query_tokens} query tokens. "
                    "Set engine.method=prompt-logprobs, and please report the model."
                )
            answers[i] = values

    found: dict[int, _Values] = {}
    for group, values in zip(groups, answers, strict=True):
        found |= dict.fromkeys(group, values)
    return [found[index] for index in range(len(pairs))], len(missed)


def _boundary(pair: Prompt) -> int:
    """Where the prompt's second part begins: the same tokens can be cut in several ways."""
    if isinstance(pair, TokenizedPair):
        return pair.query_start
    return len(pair.token_ids) if pair.second_segment is None else pair.second_segment


def _lacks_rows(pair: Prompt, values: _Values) -> bool:
    return isinstance(pair, TokenizedPair) and len(values) != pair.num_query_tokens
