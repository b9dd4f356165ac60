"""The arguments of vllm.EngineArgs: what a job's configuration asks of vLLM."""

from __future__ import annotations

from typing import Any

from rgpt_batch import __version__
from rgpt_batch.config.options import JobConfig

# An environment variable of vLLM's: 1 chooses kernels whose bits do not depend on the batch.
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"

# Larger steps do not fit the processor's caches: with 2048 tokens bloom-560m is 2 % slower,
# SmolLM2-135M 12 % (float32, 2 cores of an EPYC).
STEP_TOKENS_ON_CPU = 1024
STEP_TOKENS_ON_GPU = 8192


def engine_args(config: JobConfig, **own: Any) -> dict[str, Any]:
    """Collect the arguments of vllm.EngineArgs.

    Args:
        config: The job's.
        own: What one method sets itself; the configuration's vllm_args win over it.
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
        "pipeline_parallel_size": engine.pipeline_parallel_size,
        # Inside a Ray placement group vLLM would silently take Ray to spread one engine.
        "distributed_executor_backend": "mp" if engine.num_ranks > 1 else None,
        "gpu_memory_utilization": _memory_utilization(config),
        "kv_cache_memory_bytes": engine.kv_cache_bytes,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens(config),
        "max_model_len": config.protocol.max_tokens,
        "enable_chunked_prefill": True,
        "disable_log_stats": True,
        "enforce_eager": engine.enforce_eager,
        # Part of the key of vLLM's compile cache, which may hold the graph of vLLM's own Bloom.
        "additional_config": {"rgpt_batch": __version__},
        **own,
        **engine.vllm_args,
        **(_one_at_a_time(config) if config.engine.deterministic else {}),
    }


def _one_at_a_time(config: JobConfig) -> dict[str, Any]:
    """Collect what makes the bits of an answer those of its prompt alone.

    On CPUs matrix products and attention round by how many rows and prompts they are given. So each
    step computes one prompt, and all of it. On GPUs vLLM has kernels that do not; see
    engine.set_environment.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {"enable_prefix_caching": False}
    return {
        "enable_prefix_caching": False,
        "max_num_seqs": 1,
        "max_num_batched_tokens": max_num_batched_tokens(config),
    }


def with_room_for_a_token(args: dict[str, Any]) -> dict[str, Any]:
    """Raise max_model_len by one: vLLM keeps room for a token behind the longest prompt.

    Up to 0.31 it does so for pooling models as well, which generate none: a prompt of max_model_len
    tokens that is computed in pieces is then never finished, and vLLM plans empty steps for ever.

    That may be one more than the model has positions, which vLLM refuses by itself. It does no
    harm: a generated token is never fed, so nothing is computed at the last position.

    Raises:
        ValueError: From vLLM: the longest prompt does not fit the model.
    """
    from vllm import EngineArgs

    EngineArgs(**args).create_model_config()
    length = args["max_model_len"] + 1
    # Of all names for the number of positions, vLLM believes this one where it gives the most.
    overrides = {**args.get("hf_overrides", {}), "model_max_length": length}
    return args | {"max_model_len": length, "hf_overrides": overrides}


def with_attention_for_alibi(args: dict[str, Any]) -> dict[str, Any]:
    """Choose FlashAttention 2 for a model with ALiBi, unless the caller has chosen a version.

    Only version 2 of FlashAttention computes ALiBi. Hopper GPUs have version 3 as well. There vLLM
    (0.26 to 0.33) uses 2 for the layers, but plans its steps for 3, and fails at the first step.
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

    is_on = config.engine.prefix_caching is not False and not config.engine.deterministic
    # vLLM shares whole blocks. On CPU a block has 128 tokens by default, so shorter documents would
    # not be shared. 32 is the smallest block that its kernels take.
    block_size = {"block_size": 32} if is_on and current_platform.is_cpu() else {}
    return {"enable_prefix_caching": is_on, **block_size}


def _memory_utilization(config: JobConfig) -> float:
    """Return the share of memory that vLLM asks to be free when it starts."""
    from vllm.platforms import current_platform

    given = config.engine.gpu_memory_utilization
    if share := config.executor.gpus_per_worker:
        given *= min(share, 1.0)
    # On CPU vLLM asks for this even where the cache's size is given. It then needs far less.
    is_unused = config.engine.kv_cache_bytes is not None and current_platform.is_cpu()
    return min(given, 0.1) if is_unused else given


def max_num_batched_tokens(config: JobConfig) -> int:
    """Return how many prompt tokens the engine computes in one step."""
    from vllm.platforms import current_platform

    default = STEP_TOKENS_ON_CPU if current_platform.is_cpu() else STEP_TOKENS_ON_GPU
    num_tokens = config.engine.max_num_batched_tokens or default
    if config.engine.deterministic and current_platform.is_cpu():
        # One prompt in one step; behind it vLLM may generate a token.
        return max(num_tokens, config.protocol.max_tokens + 1)
    return num_tokens
