"""Scoring with a vLLM pooling model that computes logits for query tokens alone.

The fastest way: no logits for the document's tokens, and pairs that share a document share its
keys and values. Where it can be, steps are laid out here (steps.py, planned.py); elsewhere pairs
go to vLLM as requests, whose scheduler and prefix cache do the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.arguments import engine_args, prefix_cache_args
from rgpt_batch.engines.vllm.hooks import missing
from rgpt_batch.engines.vllm.query_rows.parts import SCHEDULER_HOOKS, STEP_HOOKS
from rgpt_batch.engines.vllm.request_engine import (
    OWN_MODEL_HOOKS,
    RequestEngine,
    own_architecture,
    register_own_models,
)
from rgpt_batch.records import QueryLogprobs, TokenizedPair

if TYPE_CHECKING:
    from rgpt_batch.engines.vllm.query_rows.planned import PlannedSteps

_logger = logging.getLogger(__name__)

_SCHEDULERS = "rgpt_batch.engines.vllm.query_rows.scheduler"
# Whoever sets one of these wants vLLM's scheduler.
_OF_THE_SCHEDULER = {"scheduler_cls", "async_scheduling"}


class QueryRowsEngine(RequestEngine[TokenizedPair, QueryLogprobs]):
    """Hands requests to vLLM's engine core, whose model answers with logprobs."""

    method = "query-rows"
    hooks = (*RequestEngine.hooks, *OWN_MODEL_HOOKS)
    _planned: PlannedSteps | None = None
    without_hooks = (
        "Set engine.method=prompt-logprobs, or install a version that pyproject.toml allows."
    )

    def __init__(self, config: JobConfig) -> None:
        super().__init__(config)
        if not (_OF_THE_SCHEDULER & config.engine.vllm_args.keys() or missing(STEP_HOOKS)):
            from rgpt_batch.engines.vllm.query_rows.planned import planned_steps

            self._planned = planned_steps(self._core)

    @override
    def _register_models(self, config: JobConfig) -> None:
        register_own_models(config)

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
            "architectures": [own_architecture(config)],
        }
        return args

    @property
    def lays_out_steps(self) -> bool:
        """Whether steps are laid out here; else pairs are requests of vLLM's scheduler."""
        return self._planned is not None

    @override
    def _score(
        self, pairs: Sequence[TokenizedPair], read_cache: bool
    ) -> list[npt.NDArray[np.float32]]:
        if self._planned is None:
            return super()._score(pairs, read_cache)
        values, num_shared = self._planned.score(pairs, share=read_cache)
        self.num_cached_tokens += num_shared
        return values

    @override
    def close(self) -> None:
        self._planned = None
        super().close()

    @override
    def _request(self, request_id: str, pair: TokenizedPair, read_cache: bool) -> Any:
        from rgpt_batch.engines.vllm.query_rows.request import to_request

        return to_request(request_id, pair, read_cache=read_cache)

    @override
    def _answer(self, values: npt.NDArray[np.float32]) -> QueryLogprobs:
        return QueryLogprobs(values=values)


def _scheduler_args(*, is_async: bool) -> dict[str, Any]:
    """Choose the scheduler that keeps the prefix cache from hiding rows, where it works."""
    if names := missing(SCHEDULER_HOOKS):
        _logger.warning(
            "this vLLM has no %s: pairs whose rows the prefix cache hides are computed twice",
            ", ".join(names),
        )
        return {}
    name = "CappedAsyncScheduler" if is_async else "CappedScheduler"
    return {"scheduler_cls": f"{_SCHEDULERS}.{name}"}
