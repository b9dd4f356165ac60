"""From query-token logprobs to one score: the only mean in the program."""

from __future__ import annotations

import numpy as np

from rgpt_batch.errors import EngineOutputError
from rgpt_batch.records import QueryLogprobs, Score, TokenizedPair

# Raised by every release that changes a score (see **Scores** in CHANGELOG.md), so that scores from
# before are neither mixed with new ones nor reused.
SCORING_VERSION = "1"

# log_softmax in reduced precision may round above 0 by this much.
MAX_LOGPROB = 1e-2


def to_score(pair: TokenizedPair, logprobs: QueryLogprobs) -> Score:
    """Reduce query-token log-likelihoods to one score.

    The score is the mean over query tokens of log p(token | document, earlier query tokens), in
    nats: at most 0, higher is more relevant.

    Args:
        pair: What was scored.
        logprobs: Shape (num_query_tokens,); at least one token.

    Raises:
        EngineOutputError: The count is wrong, or a value is not finite or above 0.

    Source: RankingGPT (arXiv 2311.16720), model card.
    """
    values = logprobs.values
    if values.shape != (pair.num_query_tokens,):
        raise EngineOutputError(
            f"the engine returned logprobs of shape {values.shape} for {pair.num_query_tokens} "
            "query tokens. Nothing was written; please report the engine and model."
        )
    if not np.isfinite(values).all() or values.max() > MAX_LOGPROB:
        raise EngineOutputError(
            f"the engine returned logprobs that are not finite or above 0: {values.tolist()}. "
            "Often the dtype overflows: try model.dtype=bfloat16 or float32."
        )
    total = float(values.sum(dtype=np.float64))
    return Score(
        mean_logprob=total / pair.num_query_tokens,
        sum_logprob=total,
        num_query_tokens=pair.num_query_tokens,
        num_document_tokens=pair.num_document_tokens,
        num_dropped_document_tokens=pair.num_dropped_document_tokens,
    )
