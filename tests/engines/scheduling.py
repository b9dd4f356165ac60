"""What the schedulers of schedulers.py have done. Only an engine that runs them loads vLLM."""

from __future__ import annotations

from typing import Any

CAPPED = "tests.engines.schedulers.CountingCappedScheduler"
UNCAPPED = "tests.engines.schedulers.CountingScheduler"

configs: list[Any] = []
preempted: list[str] = []
scheduled: list[int] = []


def reset() -> None:
    configs.clear()
    preempted.clear()
    scheduled.clear()


def vllm_config() -> Any:
    """What the last engine runs with."""
    return configs[-1]


def num_preemptions() -> int:
    return len(preempted)


def num_computed_tokens() -> int:
    return sum(scheduled)
