"""vLLM schedulers that count what they do; vLLM loads them by name."""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from rgpt_batch.engines.vllm_query_rows_scheduler import CappedScheduler

CAPPED = f"{__name__}.CountingCappedScheduler"
UNCAPPED = f"{__name__}.CountingScheduler"

_preempted: list[str] = []
_scheduled: list[int] = []


def reset() -> None:
    _preempted.clear()
    _scheduled.clear()


def num_preemptions() -> int:
    return len(_preempted)


def num_computed_tokens() -> int:
    return sum(_scheduled)


class _Counts:
    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        _scheduled.append(output.total_num_scheduled_tokens)
        return output

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        _preempted.append(request.request_id)
        return super()._preempt_request(request, *args, **kwargs)  # type: ignore[misc]


class CountingCappedScheduler(_Counts, CappedScheduler):
    """The engine's own scheduler."""


class CountingScheduler(_Counts, Scheduler):
    """vLLM's, which lets the prefix cache hide rows."""
