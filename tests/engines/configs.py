"""Configurations for engines on CPU: float32, small steps so that most prompts are prefilled in
chunks, and nothing that takes long to start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rgpt_batch.config import JobConfig

MAX_LENGTH = 1024
MAX_NUM_BATCHED_TOKENS = 96


def float32_config(
    model: Path, method: str = "prompt-logprobs", protocol: str = "card", **engine: Any
) -> JobConfig:
    return JobConfig.model_validate(
        {
            "model": {"name": str(model), "dtype": "float32"},
            "protocol": {"name": protocol}
            | ({"max_length": MAX_LENGTH} if protocol == "card" else {}),
            "engine": {
                "method": method,
                "kv_cache_bytes": 64 * 2**20,
                "max_num_seqs": 16,
                "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS,
                "enforce_eager": True,
                **engine,
            },
        }
    )
