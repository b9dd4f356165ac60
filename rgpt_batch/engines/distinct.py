"""Score every distinct pair once, in an order in which prompts share their beginnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rgpt_batch.errors import EngineOutputError
from rgpt_batch.records import QueryLogprobs, TokenizedPair

# Takes pairs, and whether they may read the prefix cache. Returns their logprobs in order; fewer
# than the query has tokens where the cache hid a row.
Run = Callable[[Sequence[TokenizedPair], bool], list[npt.NDArray[np.float32]]]


def score_distinct(pairs: Sequence[TokenizedPair], run: Run) -> tuple[list[QueryLogprobs], int]:
    """Score pairs with an engine that reads a prefix cache.

    Returns:
        One entry per pair, in order; and the number of pairs that were computed once more without
        the cache, because it had hidden a row.

    Raises:
        EngineOutputError: A row is missing although the cache was not read.
    """
    repeats: dict[tuple[bytes, int], list[int]] = {}
    for index, pair in enumerate(pairs):
        repeats.setdefault((pair.token_ids.tobytes(), pair.query_start), []).append(index)
    # Sorted by their bytes, prompts with the same beginning follow each other. So the beginning is
    # still in the cache when the next one needs it.
    groups = [repeats[key] for key in sorted(repeats)]
    distinct = [pairs[group[0]] for group in groups]

    answers = run(distinct, True)
    missed = [i for i, pair in enumerate(distinct) if len(answers[i]) != pair.num_query_tokens]
    if missed:
        for i, values in zip(missed, run([distinct[i] for i in missed], False), strict=True):
            if len(values) != distinct[i].num_query_tokens:
                raise EngineOutputError(
                    f"vLLM computed {len(values)} of {distinct[i].num_query_tokens} query tokens. "
                    "Set engine.method=prompt-logprobs, and please report the model."
                )
            answers[i] = values

    logprobs: dict[int, QueryLogprobs] = {}
    for group, values in zip(groups, answers, strict=True):
        logprobs |= dict.fromkeys(group, QueryLogprobs(values=values))
    return [logprobs[index] for index in range(len(pairs))], len(missed)
