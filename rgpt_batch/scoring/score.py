"""From logprobs or logits to one score: the only mean in the program."""

from __future__ import annotations

import math

import numpy as np

from rgpt_batch.errors import EngineOutputError
from rgpt_batch.records import (
    Answer,
    LabelLogits,
    LabelPrompt,
    Prompt,
    QueryLogprobs,
    Score,
    TokenizedPair,
)

# Raised by every release that changes a score (see **Scores** in CHANGELOG.md), so that scores from
# before are neither mixed with new ones nor reused.
SCORING_VERSION = "1"

# log_softmax in reduced precision may round above 0 by this much.
MAX_LOGPROB = 1e-2


def to_score(prompt: Prompt, answer: Answer) -> Score:
    """Reduce what the engine says of a pair to one score; higher is more relevant.

    Raises:
        EngineOutputError: The answer has another shape than the prompt asks for, or a value that no
            model can give.
    """
    match prompt, answer:
        case TokenizedPair(), QueryLogprobs():
            return _mean_logprob(prompt, answer)
        case LabelPrompt(), LabelLogits():
            return _label_score(prompt, answer)
    raise EngineOutputError(f"{type(answer).__name__} is no answer to {type(prompt).__name__}.")


def _mean_logprob(pair: TokenizedPair, logprobs: QueryLogprobs) -> Score:
    """Reduce query-token log-likelihoods to one score.

    The score is the mean over query tokens of log p(token | document, earlier query tokens), in
    nats: at most 0.

    Source: RankingGPT (arXiv 2311.16720), model card.
    """
    values = logprobs.values
    if values.shape != (pair.num_query_tokens,):
        raise EngineOutputError(
            f"the engine returned logprobs of shape {values.shape} for {pair.num_query_tokens} "
            "query tokens. Nothing was written; please report the engine and model."
        )
    total = float(values.sum(dtype=np.float64))
    # A sum is finite where all of its terms are: a double holds any sum of floats.
    if not math.isfinite(total) or values.max() > MAX_LOGPROB:
        raise EngineOutputError(
            f"the engine returned logprobs that are not finite or above 0: {values.tolist()}. "
            "Often the dtype overflows: try model.dtype=bfloat16 or float32."
        )
    return Score(
        value=total / pair.num_query_tokens,
        sum_logprob=total,
        num_query_tokens=pair.num_query_tokens,
        num_document_tokens=pair.num_document_tokens,
        num_dropped_document_tokens=pair.num_dropped_document_tokens,
    )


def _label_score(prompt: LabelPrompt, logits: LabelLogits) -> Score:
    """Reduce the logits of labels to one score.

    Of one label the score is its logit. Of two it is log p(relevant) = log sigmoid(margin), in
    nats, at most 0, where the margin is the logit of relevant less that of not relevant. A softmax
    in float32 is exactly 1 from a margin of 17 on, and the best documents would all have score 0.

    Source: MonoBERT and MonoT5 (castorini/pygaggle, rerank/transformer.py): log_softmax of two
        logits; RankLLaMA (arXiv 2310.08319): one logit.
    """
    values = logits.values.astype(np.float64)
    if values.shape not in ((1,), (2,)) or not np.isfinite(values).all():
        raise EngineOutputError(
            f"the engine returned logits {values.tolist()} for the labels of a pair; expected one "
            "or two finite numbers. Often the dtype overflows: try model.dtype=bfloat16 or float32."
        )
    margin = float(values[-1] - values[0]) if len(values) == 2 else float(values[0])
    return Score(
        value=-float(np.logaddexp(0.0, -margin)) if len(values) == 2 else margin,
        sum_logprob=None,
        logit=margin,
        num_query_tokens=prompt.num_query_tokens,
        num_dropped_query_tokens=prompt.num_dropped_query_tokens,
        num_document_tokens=prompt.num_document_tokens,
        num_dropped_document_tokens=prompt.num_dropped_document_tokens,
    )
