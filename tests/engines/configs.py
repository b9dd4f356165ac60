"""Engines on CPU for the tests: float32, nothing that takes long to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import AnyEngine, create_engine

# On a busy machine OpenMP's threads mostly wait for each other: 40 prompts of SmolLM2 took one
# thread 7 s, two threads 6 s on two idle cores and 35 s at load 5 (2026-11-23).
torch.set_num_threads(1)

MAX_LENGTH = 1024
METHODS = (
    "fake",
    "transformers",
    pytest.param("prompt-logprobs", marks=pytest.mark.vllm),
    pytest.param("query-rows", marks=pytest.mark.vllm),
)


def float32_config(
    model: Path,
    method: str = "prompt-logprobs",
    *,
    protocol: str = "card",
    allow_pickled_weights: bool = False,
    **engine: Any,
) -> JobConfig:
    """Configure an engine; most prompts of the tests are longer than one of its steps."""
    return JobConfig.model_validate(
        {
            "model": {
                "name": str(model),
                "dtype": "float32",
                "allow_pickled_weights": allow_pickled_weights,
            },
            "protocol": {
                "name": protocol,
                "max_length": MAX_LENGTH if protocol == "card" else None,
            },
            "engine": {
                "method": method,
                "kv_cache_bytes": 64 * 2**20,
                "max_num_seqs": 16,
                "max_num_batched_tokens": 96,
                "enforce_eager": True,
                **engine,
            },
        }
    )


@contextmanager
def open_engine(config: JobConfig) -> Iterator[AnyEngine]:
    """Load an engine and close it; vLLM allows one at a time in a process."""
    engine = create_engine(config)
    try:
        yield engine
    finally:
        engine.close()
