"""Scoring with a vLLM pooling model that computes logits for query tokens alone.

The fastest way: no logits for the document's tokens, and pairs that share a document share its
keys and values through vLLM's prefix cache. It leans on parts of vLLM that are not public; where
one is missing the engine does not start.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import numpy.typing as npt

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.distinct import score_distinct
from rgpt_batch.engines.vllm import common
from rgpt_batch.engines.vllm.hooks import Hook, Method, missing
from rgpt_batch.errors import EngineDead, EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair

_logger = logging.getLogger(__name__)

# Requests in vLLM, as a multiple of max_num_seqs: a step never runs short, and queues stay small.
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
# Without these a cached prefix may hide rows. That is noticed, but costs a second run.
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


class QueryRowsEngine:
    """See the module.

    Args:
        config: The job's.

    Attributes:
        num_retries: Pairs that were computed twice, because a cached prefix had hidden a row.
    """

    method = "query-rows"
    passed_over: tuple[str, ...] = ()

    def __init__(self, config: JobConfig) -> None:
        self.num_retries = 0
        self._window = _WINDOW * config.engine.max_num_seqs
        self._request_ids = itertools.count()
        common.set_environment()
        try:
            self._engine: Any = _start(config)
        except EngineStartError:
            raise
        except Exception as error:
            raise common.start_error(config, error) from error

    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        """See Engine.

        Raises:
            EngineOutputError: A row is missing although nothing was taken from the cache.
        """
        logprobs, num_retries = score_distinct(pairs, self._run)
        self.num_retries += num_retries
        return logprobs

    def _run(
        self, pairs: Sequence[TokenizedPair], read_cache: bool
    ) -> list[npt.NDArray[np.float32]]:
        """Bring pairs through vLLM.

        Returns:
            In order; with fewer values than query tokens where a row was hidden.
        """
        from rgpt_batch.engines.vllm.query_rows.request import to_request

        common.settle_threads()
        # The core takes requests as they are. LLMEngine, around it, would check and copy them and
        # double the Python calls per pair.
        core = self._engine.engine_core
        answers = [np.empty(0, np.float32)] * len(pairs)
        waiting = iter(enumerate(pairs))
        running: dict[str, int] = {}
        try:
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
        except Exception as error:
            # Whatever vLLM raises in mid-step leaves the engine in an unknown state.
            raise EngineDead(f"vLLM failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """See Engine. Another engine can then start in this process."""
        if self._engine is not None:
            common.shut_down(self._engine)
            self._engine = None


def _start(config: JobConfig) -> Any:
    from vllm import EngineArgs, LLMEngine

    from rgpt_batch.engines.vllm.query_rows import models

    if names := missing(_HOOKS):
        raise EngineStartError(
            f"this vLLM has no {', '.join(names)}. Set engine.method=prompt-logprobs, or install "
            "a version that pyproject.toml allows."
        )
    models.register()
    # With several GPUs, the model is looked up in processes that only know installed plugins.
    plugins = {plugin.module for plugin in entry_points(group="vllm.general_plugins")}
    if config.engine.tensor_parallel_size > 1 and _MODELS not in plugins:
        raise EngineStartError(
            "vLLM's workers do not find rgpt_batch's models, because the package is not installed "
            "as it is now. Install it again: pip install --no-deps -e ."
        )
    args = common.with_attention_for_alibi(_engine_args(config))
    return LLMEngine.from_engine_args(EngineArgs(**args))


def _engine_args(config: JobConfig) -> dict[str, Any]:
    args = common.engine_args(
        config,
        runner="pooling",
        max_model_len=config.protocol.max_tokens,
        **common.prefix_cache_args(config),
    )
    if "scheduler_cls" not in args:
        if names := missing(_SCHEDULER_HOOKS):
            _logger.warning(
                "this vLLM has no %s: pairs whose rows the prefix cache hides are computed twice",
                ", ".join(names),
            )
        else:
            kind = "CappedAsyncScheduler" if args.get("async_scheduling") else "CappedScheduler"
            args["scheduler_cls"] = f"{_SCHEDULERS}.{kind}"
    overrides = args.get("hf_overrides", {})
    args["hf_overrides"] = {
        # Else pooling models have a float32 head, for which vLLM on CPU converts the weights in
        # every step, and which it refuses where the head is quantised.
        "head_dtype": "model",
        **overrides,
        "architectures": [_architecture(config)],
    }
    return args


def _architecture(config: JobConfig) -> str:
    """Load the scoring counterpart of the checkpoint's architecture, and name it."""
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
