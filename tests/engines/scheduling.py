"""What the schedulers of schedulers.py have done. Only an engine that runs them loads vLLM."""

from __future__ import annotations

CAPPED = "tests.engines.schedulers.CountingCappedScheduler"
UNCAPPED = "tests.engines.schedulers.CountingScheduler"

preempted: list[str] = []
scheduled: list[int] = []


def reset() -> None:
    preempted.clear()
    scheduled.clear()


def num_preemptions() -> int:
    return len(preempted)


def num_computed_tokens() -> int:
    return sum(scheduled)
