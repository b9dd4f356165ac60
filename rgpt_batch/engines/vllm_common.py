"""What the engines that run on vLLM have in common."""

from __future__ import annotations

import os
from typing import Any

from rgpt_batch import __version__
from rgpt_batch.config import JobConfig
from rgpt_batch.errors import EngineStartError


def set_environment() -> None:
    """Set vLLM's environment variables, as far as the caller has not; comes before importing it."""
    # In one process there is no engine process that could outlive this one.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # vLLM on CPU would keep a core free for a front end that this process does not have.
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def engine_args(config: JobConfig, **own: Any) -> dict[str, Any]:
    """Collect the arguments of vllm.EngineArgs.

    Args:
        config: The job's.
        own: What one engine sets itself; the configuration's vllm_args win over it.
    """
    model, engine = config.model, config.engine
    return {
        "model": model.name,
        "revision": model.revision,
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "skip_tokenizer_init": True,
        "tensor_parallel_size": engine.tensor_parallel_size,
        # Inside a Ray placement group vLLM would silently take Ray to spread one engine.
        "distributed_executor_backend": "mp" if engine.tensor_parallel_size > 1 else None,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "kv_cache_memory_bytes": engine.kv_cache_bytes,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "enable_chunked_prefill": True,
        "disable_log_stats": True,
        "enforce_eager": engine.enforce_eager,
        # Part of the key of vLLM's compile cache, which may hold the graph of vLLM's own Bloom.
        "additional_config": {"rgpt_batch": __version__},
        **own,
        **engine.vllm_args,
    }


def settle_threads() -> None:
    """Make the calling thread fit for a step of vLLM; comes before every call that runs some.

    In a new thread OpenMP has its own idea of the number of threads until torch is asked for its;
    vLLM's CPU attention fails when the two differ in mid-step.
    """
    import torch

    torch.get_num_threads()


def start_error(config: JobConfig, error: Exception) -> EngineStartError:
    """Turn what vLLM raised while it started into our error."""
    return EngineStartError(
        f"vLLM cannot start with model '{config.model.name}': {type(error).__name__}: {error}\n"
        "Set VLLM_LOGGING_LEVEL=INFO to see vLLM's log."
    )
