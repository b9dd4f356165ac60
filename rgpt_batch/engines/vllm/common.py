"""What the engines that run on vLLM have in common."""

from __future__ import annotations

import os
import sys
from typing import Any

from pydantic import ValidationError

from rgpt_batch import __version__
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import EngineStartError
from rgpt_batch.scoring.torch_builds import wrong_builds


def set_environment() -> None:
    """Set vLLM's environment variables, as far as the caller has not; comes before importing it."""
    # In one process there is no engine process that could outlive this one.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # vLLM on CPU would keep a core free for a front end that this process does not have.
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Float32 attention on GPUs is Triton's, which would multiply in tf32. Other dtypes do not ask.
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")


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
        # auto reads pickled weights where there are no safetensors.
        "load_format": "auto" if model.allow_pickled_weights else "safetensors",
        "skip_tokenizer_init": True,
        "tensor_parallel_size": engine.tensor_parallel_size,
        # Inside a Ray placement group vLLM would silently take Ray to spread one engine.
        "distributed_executor_backend": "mp" if engine.tensor_parallel_size > 1 else None,
        "gpu_memory_utilization": _memory_utilization(config),
        "kv_cache_memory_bytes": engine.kv_cache_bytes,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens(config),
        "enable_chunked_prefill": True,
        "disable_log_stats": True,
        "enforce_eager": engine.enforce_eager,
        # Part of the key of vLLM's compile cache, which may hold the graph of vLLM's own Bloom.
        "additional_config": {"rgpt_batch": __version__},
        **own,
        **engine.vllm_args,
    }


def with_room_for_a_token(args: dict[str, Any]) -> dict[str, Any]:
    """Raise max_model_len by the token that vLLM has to generate behind the longest prompt.

    That may be one more than the model has positions, which vLLM refuses; but nothing is computed
    at the last one, since the token is never fed.

    Raises:
        ValueError: From vLLM: the longest prompt itself does not fit the model.
    """
    from vllm import EngineArgs

    EngineArgs(**args).create_model_config()
    length = args["max_model_len"] + 1
    # vLLM believes this name where it tells of more positions than the others.
    overrides = {**args.get("hf_overrides", {}), "model_max_length": length}
    return args | {"max_model_len": length, "hf_overrides": overrides}


def with_attention_for_alibi(args: dict[str, Any]) -> dict[str, Any]:
    """Choose FlashAttention 2 for a model with ALiBi, unless the caller has chosen a version.

    Of FlashAttention, only version 2 computes ALiBi. On Hopper GPUs, which have version 3 as well,
    vLLM (0.26 to 0.33) takes 2 for the layers, plans its steps for 3, and fails at the first one.
    """
    from vllm import EngineArgs

    if not computes_alibi(EngineArgs(**args).create_model_config().hf_text_config):
        return args
    given = args.get("attention_config") or {}
    return args | {"attention_config": {"flash_attn_version": 2, **given}}


def computes_alibi(hf_config: Any) -> bool:
    """Tell from config.json whether vLLM computes ALiBi: Bloom always, Falcon and MPT if set."""
    mpt = getattr(hf_config, "attn_config", None) or {}
    mpt_alibi = mpt.get("alibi") if isinstance(mpt, dict) else getattr(mpt, "alibi", False)
    is_bloom = hf_config.model_type == "bloom"
    return bool(is_bloom or getattr(hf_config, "alibi", False) or mpt_alibi)


def prefix_cache_args(config: JobConfig) -> dict[str, Any]:
    """Collect the arguments of vllm.EngineArgs for an engine that reads the prefix cache."""
    from vllm.platforms import current_platform

    is_on = config.engine.prefix_caching is not False
    # Whole blocks are shared. vLLM's default on CPU would leave documents below 128 tokens out; 32
    # is the least that its kernels take.
    block_size = {"block_size": 32} if is_on and current_platform.is_cpu() else {}
    return {"enable_prefix_caching": is_on, **block_size}


def _memory_utilization(config: JobConfig) -> float:
    """Return the share of memory that vLLM asks to be free when it starts."""
    from vllm.platforms import current_platform

    given = config.engine.gpu_memory_utilization
    if share := config.executor.gpus_per_worker:
        given *= min(share, 1.0)
    # On CPU it asks even where the cache's size is given, and then for more than it will use.
    is_unused = config.engine.kv_cache_bytes is not None and current_platform.is_cpu()
    return min(given, 0.1) if is_unused else given


def max_num_batched_tokens(config: JobConfig) -> int:
    """Return how many prompt tokens the engine takes in one step."""
    if given := config.engine.max_num_batched_tokens:
        return given
    from vllm.platforms import current_platform

    # On CPU larger steps leave the caches: 2048 tokens are 2 % (bloom-560m) to 12 % (SmolLM2-135M)
    # slower (float32, 2 cores of an EPYC).
    return 1024 if current_platform.is_cpu() else 8192


def shut_down(engine: Any) -> None:
    """Stop a vllm.LLMEngine, so that another one can start in this process.

    Left to the garbage collector, the old engine could tear down the process groups of the next.
    """
    engine.engine_core.shutdown()
    # Model runner V1 forbids CUDA graphs when it has captured its own; V2 never allows them again.
    monitor = sys.modules.get("vllm.compilation.monitor")
    if allow := getattr(monitor, "set_cudagraph_capturing_enabled", None):
        allow(True)


def settle_threads() -> None:
    """Make the calling thread fit for a step of vLLM; comes before every call that runs some.

    In a new thread OpenMP has its own idea of the number of threads until torch is asked for its;
    vLLM's CPU attention fails when the two differ in mid-step.
    """
    import torch

    torch.get_num_threads()


def start_error(config: JobConfig, error: Exception) -> EngineStartError:
    """Turn what vLLM raised while it started into our error."""
    # Where vLLM finds settings wrong, the first line of its message only counts them.
    cause = (
        "; ".join(each["msg"] for each in error.errors())
        if isinstance(error, ValidationError)
        else error
    )
    advice = "Set VLLM_LOGGING_LEVEL=INFO to see vLLM's log."
    if "derived max_model_len" in str(cause):
        advice = "Lower protocol.max_length to the number of positions that the model has."
    # In the first line, which is what `auto` passes on.
    causes = ". ".join(filter(None, [f"{type(error).__name__}: {cause}", wrong_builds()]))
    return EngineStartError(
        f"vLLM cannot start with model '{config.model.name}': {causes}\n{advice}"
    )
