"""Scoring with a vLLM pooling model that computes logits for query tokens alone.

The fastest way: no logits for the document's tokens, and pairs that share a document share its
keys and values through vLLM's prefix cache. It uses parts of vLLM that are not public. Where one
is missing the engine does not start.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.arguments import engine_args, prefix_cache_args
from rgpt_batch.engines.vllm.engine import VllmEngine
from rgpt_batch.engines.vllm.hooks import Hook, Method, missing
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair

_logger = logging.getLogger(__name__)

# How many times max_num_seqs requests vLLM has at once: no step lacks any, and queues stay short.
_WINDOW = 2

_HOOKS = (
    Hook(
        "vllm.pooling_params",
        "PoolingParams",
        keywords=("task", "extra_kwargs", "skip_reading_prefix_cache"),
    ),
    Hook("vllm.model_executor.layers.pooler", "Pooler", ("get_pooling_updates",)),
    Hook("vllm.model_executor.models.interfaces_base", "VllmModelForPooling"),
    Hook("vllm.v1.pool.metadata", "PoolingStates"),
    Hook("vllm.v1.pool.metadata", "PoolingCursor", ("seq_lens_cpu", "num_scheduled_tokens_cpu")),
    Hook(
        "vllm.v1.pool.metadata",
        "PoolingMetadata",
        ("prompt_lens", "pooling_params", "pooling_states", "get_pooling_cursor"),
    ),
    Hook(
        "vllm.v1.engine",
        "EngineCoreRequest",
        keywords=(
            *("request_id", "prompt_token_ids", "pooling_params", "sampling_params"),
            *("mm_features", "lora_request", "cache_salt", "arrival_time", "data_parallel_rank"),
        ),
    ),
    Hook("vllm.v1.engine", "EngineCoreOutput", ("request_id", "pooling_output")),
    Hook(
        "vllm.v1.engine.core_client",
        "EngineCoreClient",
        (Method("add_request", ("request",)), "get_output"),
    ),
)
# Without these a cached prefix may hide rows. That is noticed, and the pair computed once more.
_SCHEDULER_HOOKS = (
    Hook(
        "vllm.v1.core.kv_cache_manager",
        "KVCacheManager",
        (Method("get_computed_blocks", ("request",)),),
    ),
    Hook("vllm.v1.core.sched.scheduler", "Scheduler"),
    Hook("vllm.v1.core.sched.async_scheduler", "AsyncScheduler"),
)
_MODELS = "rgpt_batch.engines.vllm.query_rows.models"
_SCHEDULERS = "rgpt_batch.engines.vllm.query_rows.scheduler"


class QueryRowsEngine(VllmEngine[TokenizedPair, QueryLogprobs]):
    """Hands requests to vLLM's engine core, whose model answers with logprobs."""

    method = "query-rows"
    hooks = _HOOKS
    without_hooks = (
        "Set engine.method=prompt-logprobs, or install a version that pyproject.toml allows."
    )

    def __init__(self, config: JobConfig) -> None:
        super().__init__(config)
        self._window = _WINDOW * config.engine.max_num_seqs
        self._request_ids = itertools.count()

    @override
    def _register_models(self, config: JobConfig) -> None:
        from rgpt_batch.engines.vllm.query_rows import models

        models.register()
        # With several GPUs, the model is looked up in processes that only know installed plugins.
        plugins = {plugin.module for plugin in entry_points(group="vllm.general_plugins")}
        if config.engine.tensor_parallel_size > 1 and _MODELS not in plugins:
            raise EngineStartError(
                "vLLM's workers do not find rgpt_batch's models, because the package is not "
                "installed as it is now. Install it again: pip install --no-deps -e ."
            )

    @classmethod
    @override
    def arguments(cls, config: JobConfig) -> dict[str, Any]:
        args = engine_args(config, runner="pooling", **prefix_cache_args(config))
        if "scheduler_cls" not in args:
            args |= _scheduler_args(is_async=bool(args.get("async_scheduling")))
        overrides = args.get("hf_overrides", {})
        args["hf_overrides"] = {
            # Otherwise pooling models have a float32 head. vLLM on CPU would convert its weights in
            # every step, and refuses it where the head is quantised.
            "head_dtype": "model",
            **overrides,
            "architectures": [_architecture(config)],
        }
        return args

    @override
    def _load(self, args: dict[str, Any]) -> Any:
        from vllm import EngineArgs, LLMEngine

        return LLMEngine.from_engine_args(EngineArgs(**args))

    @property
    @override
    def _core(self) -> Any:
        return self._vllm.engine_core

    @override
    def _score(
        self, pairs: Sequence[TokenizedPair], read_cache: bool
    ) -> list[npt.NDArray[np.float32]]:
        from rgpt_batch.engines.vllm.query_rows.request import to_request

        # The core takes requests as they are. LLMEngine, around it, would check and copy them and
        # double the Python calls per pair.
        core = self._core
        answers = [np.empty(0, np.float32)] * len(pairs)
        waiting = iter(enumerate(pairs))
        running: dict[str, int] = {}
        while True:
            for index, pair in itertools.islice(waiting, self._window - len(running)):
                request_id = str(next(self._request_ids))
                core.add_request(to_request(request_id, pair, read_cache=read_cache))
                running[request_id] = index
            if not running:
                return answers
            for output in core.get_output().outputs:
                # A copy: the tensor is a view of the whole step's.
                values = output.pooling_output.numpy().copy()
                answers[running.pop(output.request_id)] = values

    @override
    def _answer(self, values: npt.NDArray[np.float32]) -> QueryLogprobs:
        return QueryLogprobs(values=values)


def _scheduler_args(*, is_async: bool) -> dict[str, Any]:
    """Choose the scheduler that keeps the prefix cache from hiding rows, where it works."""
    if names := missing(_SCHEDULER_HOOKS):
        _logger.warning(
            "this vLLM has no %s: pairs whose rows the prefix cache hides are computed twice",
            ", ".join(names),
        )
        return {}
    name = "CappedAsyncScheduler" if is_async else "CappedScheduler"
    return {"scheduler_cls": f"{_SCHEDULERS}.{name}"}


def _architecture(config: JobConfig) -> str:
    """Load our scoring model for the checkpoint's architecture, and return its name."""
    from vllm import ModelRegistry

    from rgpt_batch.engines.vllm.models import architectures, load_here
    from rgpt_batch.engines.vllm.query_rows.models import query_rows_architecture

    known = architectures(config)
    for architecture in known:
        name = query_rows_architecture(architecture)
        if name in ModelRegistry.models:
            load_here(name, config)
            return name
    raise EngineStartError(
        f"model '{config.model.name}': vLLM knows no causal language model {' or '.join(known)}, "
        "which config.json names. Set engine.method=transformers."
    )
