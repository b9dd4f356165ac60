"""All parts of vLLM that are not public and that we use, by what needs them.

The same lists are looked up in the installed vLLM when an engine starts (hooks.missing), and in the
source of versions that are not installed (scripts/vllm_versions.py).
"""

from __future__ import annotations

from rgpt_batch.engines.vllm.engine import CACHE_HOOKS
from rgpt_batch.engines.vllm.hooks import Hook
from rgpt_batch.engines.vllm.kernels import INT8_HOOKS
from rgpt_batch.engines.vllm.last_layer import LAYER_HOOKS
from rgpt_batch.engines.vllm.models import BLOOM_HOOKS
from rgpt_batch.engines.vllm.pipeline import PIPELINE_HOOKS
from rgpt_batch.engines.vllm.pooling import PoolingEngine
from rgpt_batch.engines.vllm.prompt_logprobs import PromptLogprobsEngine
from rgpt_batch.engines.vllm.query_rows.engine import QueryRowsEngine
from rgpt_batch.engines.vllm.query_rows.parts import (
    LOGPROBS_HOOKS,
    SCHEDULER_HOOKS,
    STEP_HOOKS,
)
from rgpt_batch.engines.vllm.token_ids import TokenIdsEngine

ENGINES = (QueryRowsEngine, TokenIdsEngine, PromptLogprobsEngine, PoolingEngine)
# Name → parts: each engine by its method, then what more than one engine does better with.
PARTS: dict[str, tuple[Hook, ...]] = {
    **{engine.method: engine.hooks for engine in ENGINES},
    "prefix cache of query-rows": SCHEDULER_HOOKS,
    "steps of query-rows": STEP_HOOKS,
    "logprobs on GPUs": LOGPROBS_HOOKS,
    "Bloom": BLOOM_HOOKS,
    "last layer": LAYER_HOOKS,
    "8-bit integers on CPUs": INT8_HOOKS,
    "clearing the cache": CACHE_HOOKS,
    "splitting by layers": PIPELINE_HOOKS,
}
