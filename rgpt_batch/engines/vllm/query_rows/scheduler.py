"""Schedulers that keep the prefix cache from hiding rows that are needed.

The cache holds keys and values, but no hidden states, and these are needed from the first row on
that predicts a query token. So a hit may reach up to that row, and no further.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from rgpt_batch.engines.vllm.query_rows.request import TOKEN_BYTES, query_of


class _Context:
    """A request that, for the prefix cache, ends with the first row that is needed.

    A lookup never returns a prompt's last row. That is all for which it asks the length.
    """

    __slots__ = ("_request", "num_tokens")

    def __init__(self, request: Any) -> None:
        self._request = request
        num_rows = len(query_of(request.pooling_params)) // TOKEN_BYTES
        self.num_tokens = request.num_tokens - num_rows + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)


def capped(look_up: Callable[..., Any]) -> Callable[..., Any]:
    """Let a lookup in the prefix cache return no row that is needed.

    Args:
        look_up: KVCacheManager.get_computed_blocks. Up to vLLM 0.32 it takes the request alone, and
            returns at most all of its tokens but the last. From 0.33 on the scheduler may pass a
            limit of its own.
    """
    if "max_cache_hit_length" not in inspect.signature(look_up).parameters:
        return lambda request, *args, **kwargs: look_up(_Context(request), *args, **kwargs)

    def look_up_to_context(
        request: Any, max_cache_hit_length: int | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        context = _Context(request)
        if max_cache_hit_length is not None:
            max_cache_hit_length = min(max_cache_hit_length, context.num_tokens - 1)
        return look_up(context, max_cache_hit_length, *args, **kwargs)

    return look_up_to_context


class _CapsPrefixHits:
    kv_cache_manager: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        manager = self.kv_cache_manager
        manager.get_computed_blocks = capped(manager.get_computed_blocks)


class CappedScheduler(_CapsPrefixHits, Scheduler):  # type: ignore[misc]
    """vLLM's scheduler with the cap."""


class CappedAsyncScheduler(_CapsPrefixHits, AsyncScheduler):  # type: ignore[misc]
    """The same for async_scheduling."""
