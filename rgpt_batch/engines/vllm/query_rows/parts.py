"""The parts of vLLM that query-rows does better with, and does without where they are missing."""

from __future__ import annotations

from rgpt_batch.engines.vllm.hooks import Hook, Method, OfInstance

# Without these a cached prefix may hide rows. That is noticed, and the pair computed once more.
SCHEDULER_HOOKS = (
    Hook(
        "vllm.v1.core.kv_cache_manager",
        "KVCacheManager",
        (Method("get_computed_blocks", ("request",)),),
    ),
    Hook("vllm.v1.core.sched.scheduler", "Scheduler", (OfInstance("kv_cache_manager"),)),
    Hook("vllm.v1.request", "Request", ("num_tokens", OfInstance("pooling_params"))),
    Hook("vllm.v1.core.sched.async_scheduler", "AsyncScheduler"),
)
# Without these vLLM's scheduler plans the steps, which takes its host longer.
STEP_HOOKS = (
    Hook(
        "vllm.forward_context",
        "set_forward_context",
        keywords=("attn_metadata", "vllm_config", "num_tokens", "slot_mapping"),
    ),
    Hook(
        "vllm.v1.attention.backend",
        "CommonAttentionMetadata",
        keywords=(
            *("query_start_loc", "query_start_loc_cpu", "seq_lens", "num_reqs"),
            *("num_actual_tokens", "max_query_len", "max_seq_len", "block_table_tensor"),
            *("slot_mapping", "causal"),
        ),
    ),
    Hook(
        "vllm.v1.attention.backend",
        "AttentionMetadataBuilder",
        (Method("build", ("common_prefix_len", "common_attn_metadata")),),
    ),
    Hook(
        "vllm.v1.worker.utils", "AttentionGroup", ("backend", "layer_names", "get_metadata_builder")
    ),
)
# vLLM's kernel for the logprobs of some tokens. It computes in float32 whatever the logits are, and
# writes nothing of their size. Without it torch does.
LOGPROBS_HOOKS = (
    Hook(
        "vllm.v1.worker.gpu.sample.logprob",
        "compute_token_logprobs",
        keywords=("logits", "token_ids"),
    ),
)
