"""What an engine has to show before it is trusted with a job.

Some faults give numbers that look like scores: a wrong row, a row that is lost where a prompt is
computed in pieces, a cached prefix that belongs to another prompt. All of them break one law of
causal language models. A token's logprob depends on the tokens before it alone: not on where the
query begins, what else is in the batch, or how the prompt was cut into steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.base import LikelihoodEngine
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair
from rgpt_batch.scoring.score import MAX_LOGPROB

# Mean |difference| of a token's logprob, nats. Batches of other shapes round differently: SmolLM2
# in bfloat16 on CPU differs by up to 0.05, in float32 by 1e-5. A wrong row is several nats away.
_MAX_MEAN_DIFFERENCE = {"float32": 0.01}
_MAX_MEAN_DIFFERENCE_16_BIT = 0.5
# Any vocabulary has these ids, and they are not special tokens.
_TOKEN_IDS = (10, 200)


def self_test(engine: LikelihoodEngine, config: JobConfig, step_tokens: int) -> None:
    """Score prompts whole and in two parts, and compare.

    Args:
        engine: Just started.
        config: Its configuration.
        step_tokens: How many prompt tokens the engine computes in one step.

    Raises:
        EngineStartError: The engine contradicts itself.
        EngineError: It fails.
    """
    wholes, cuts = likelihood_prompts(step_tokens, config.protocol.max_tokens)
    scored = engine.score(wholes)
    _check_values(engine, wholes, scored)
    # The last whole prompt is cut just where a step ends. Its parts fit into one step, come in
    # another order, and may take their beginning from the cache.
    heads = [_part(p, p.query_start, cut) for p, cut in zip(wholes, cuts, strict=True)]
    tails = [_part(p, cut, len(p.token_ids)) for p, cut in zip(wholes, cuts, strict=True)]
    parts = [
        np.concatenate([head.values, tail.values])
        for head, tail in zip(engine.score(heads[::-1])[::-1], engine.score(tails), strict=True)
    ]
    if any(len(part) != len(whole.values) for part, whole in zip(parts, scored, strict=True)):
        raise EngineStartError(f"{engine.method} lost query tokens in its self-test.")
    difference = max(
        float(np.abs(part - whole.values).mean()) for part, whole in zip(parts, scored, strict=True)
    )
    limit = _MAX_MEAN_DIFFERENCE.get(config.model.dtype, _MAX_MEAN_DIFFERENCE_16_BIT)
    if not difference <= limit:
        raise EngineStartError(
            f"{engine.method} gave the same tokens logprobs that differ by {difference:.2g} nats "
            f"in its self-test; {limit:g} is allowed."
        )


def likelihood_prompts(step_tokens: int, max_tokens: int) -> tuple[list[TokenizedPair], list[int]]:
    """Make prompts that fill a step and a bit more, so that it ends at 3/4 of the last prompt.

    Returns:
        Pairs of equal length, and the position at which to cut each in two.
    """
    num_prompts = math.ceil(step_tokens / max_tokens + 0.25)
    length = max(8, min(max_tokens, math.ceil(step_tokens / (num_prompts - 0.25))))
    rng = np.random.default_rng(0)
    pairs = [
        TokenizedPair(
            token_ids=rng.integers(*_TOKEN_IDS, length, dtype=np.int32),
            query_start=length // 2,
            num_document_tokens=length // 2,
            num_dropped_document_tokens=0,
        )
        for _ in range(num_prompts)
    ]
    return pairs, [length * 3 // 4] * num_prompts


def _part(pair: TokenizedPair, start: int, end: int) -> TokenizedPair:
    """Cut off what follows `end`, and let the query begin at `start`."""
    return TokenizedPair(
        token_ids=pair.token_ids[:end],
        query_start=start,
        num_document_tokens=start,
        num_dropped_document_tokens=0,
    )


def _check_values(
    engine: LikelihoodEngine, pairs: Sequence[TokenizedPair], logprobs: Sequence[QueryLogprobs]
) -> None:
    if [len(each.values) for each in logprobs] != [pair.num_query_tokens for pair in pairs]:
        raise EngineStartError(f"{engine.method} lost query tokens in its self-test.")
    values = np.concatenate([each.values for each in logprobs])
    if not np.isfinite(values).all() or values.max() > MAX_LOGPROB:
        raise EngineStartError(
            f"{engine.method} gave logprobs from {values.min()} to {values.max()} in its self-test."
        )
