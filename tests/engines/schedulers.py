"""vLLM schedulers that count what they do; vLLM loads them by name."""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from rgpt_batch.engines.vllm.query_rows.scheduler import CappedScheduler
from tests.engines import scheduling


class _Counts:
    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(vllm_config, *args, **kwargs)  # type: ignore[call-arg]
        scheduling.configs.append(vllm_config)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        scheduling.scheduled.append(output.total_num_scheduled_tokens)
        return output

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        scheduling.preempted.append(request.request_id)
        return super()._preempt_request(request, *args, **kwargs)  # type: ignore[misc]


class CountingCappedScheduler(_Counts, CappedScheduler):
    """The engine's own scheduler."""


class CountingScheduler(_Counts, Scheduler):
    """vLLM's, which lets the prefix cache hide rows."""
