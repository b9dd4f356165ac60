"""What an executor is, and the queue of units that all executors share."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit


class Worker(Protocol):
    """Runs units one by one or several at a time, each on a thread of its own."""

    def run(self, unit: WorkUnit) -> UnitReport:
        """Bring one unit from reading to commit."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


# Called with the worker's name, where the worker is to live.
MakeWorker = Callable[[str], Worker]


class Executor(Protocol):
    """Brings units to workers. A context manager: entering connects, leaving stops all workers."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker
    ) -> Iterator[UnitReport | UnitFailure]:
        """Yield one outcome per unit, as they come.

        Raises:
            ConfigError: The cluster cannot run the workers that were asked for.
            EngineError: No worker starts, or the only one died.
        """
        ...


class UnitQueue:
    """Units that wait, largest first, and how often each was tried.

    A unit that was in flight when a worker crashed is a suspect: it waits apart and should run
    alone, so that only the unit that causes the crashes collects them.
    """

    def __init__(self, units: Sequence[WorkUnit], max_attempts: int) -> None:
        self._fresh = deque(sorted(units, key=lambda unit: -unit.num_bytes))
        self._suspects: deque[WorkUnit] = deque()
        self._num_attempts: Counter[str] = Counter()
        self._max_attempts = max_attempts

    def __len__(self) -> int:
        return len(self._fresh) + len(self._suspects)

    def take(self, *, alone: bool) -> WorkUnit | None:
        """Hand out the next unit; suspects only to a worker that has nothing else in flight."""
        if self._suspects and alone:
            return self._suspects.popleft()
        return self._fresh.popleft() if self._fresh else None

    def is_suspect(self, unit: WorkUnit) -> bool:
        """Whether the unit has been in flight at a crash."""
        return self._num_attempts[f"crash {unit.unit_id}"] > 0

    def failed(self, unit: WorkUnit, cause: str, *, crashed: bool = False) -> UnitFailure | None:
        """Take a unit back after a failed attempt; a UnitFailure means that it was the last one."""
        self._num_attempts[unit.unit_id] += 1
        if self._num_attempts[unit.unit_id] >= self._max_attempts:
            return UnitFailure(
                unit_id=unit.unit_id,
                num_rows=unit.num_rows,
                num_attempts=self._num_attempts[unit.unit_id],
                cause=cause,
            )
        if crashed:
            self._num_attempts[f"crash {unit.unit_id}"] += 1
            self._suspects.append(unit)
        else:
            self._fresh.append(unit)
        return None
