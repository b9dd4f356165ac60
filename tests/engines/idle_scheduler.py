"""A scheduler for vLLM that plans steps without a token, for ever."""

from __future__ import annotations

from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler


class IdleScheduler(Scheduler):
    """vLLM finds it by its name, in engine.vllm_args.scheduler_cls."""

    def schedule(self, *arguments: Any, **options: Any) -> Any:
        self.max_num_scheduled_tokens = 0
        return super().schedule(*arguments, **options)
