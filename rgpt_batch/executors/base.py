"""What an executor is, and what all executors share: starting a worker, the queue of units."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from rgpt_batch.errors import EngineError, EngineStartError, RgptBatchError, ShardError
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit

# After this many failures without a unit done in between, the cause is not in the units.
_MAX_FAILURES_IN_A_ROW = 20


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
    """Brings units to workers. A context manager: entering connects, leaving stops all workers.

    Attributes:
        activity: What the executor is doing now, in a few words; changes while run() is consumed.
    """

    activity: str

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
            RgptBatchError: Every unit fails; the last cause.
        """
        ...


def start_worker(make_worker: MakeWorker, name: str) -> Worker:
    """Load an engine.

    Raises:
        RgptBatchError: As the worker raises it; EngineStartError for all other exceptions.
    """
    try:
        return make_worker(name)
    except RgptBatchError:
        raise
    except Exception as error:
        raise EngineStartError(f"a worker cannot start: {describe(error)}") from error


def run_unit(worker: Worker, unit: WorkUnit) -> UnitReport:
    """Run one unit.

    Raises:
        RgptBatchError: As the worker raises it; EngineError for all other exceptions, whose
            classes need not survive the way to another process.
    """
    try:
        return worker.run(unit)
    except RgptBatchError:
        raise
    except Exception as error:
        raise EngineError(describe(error)) from error


def describe(error: Exception) -> str:
    """Say in one line what happened; of errors that are not ours, also where."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, RgptBatchError) or error.__traceback__ is None:
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({os.path.basename(place.filename)}:{place.lineno})"


class UnitQueue:
    """Units that wait, largest first, and how often each was tried.

    A unit that was in flight when a worker crashed is a suspect: it waits apart and should run
    alone, so that only the unit that causes the crashes collects them.
    """

    def __init__(self, units: Sequence[WorkUnit], max_attempts: int) -> None:
        self._fresh = deque(sorted(units, key=lambda unit: -unit.num_bytes))
        self._suspects: deque[WorkUnit] = deque()
        self._suspect_ids: set[str] = set()
        self._num_attempts: Counter[str] = Counter()
        self._max_attempts = max_attempts
        self._num_failures_in_a_row = 0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._suspects)

    def take(self, *, alone: bool) -> WorkUnit | None:
        """Hand out the next unit; suspects only to a worker that has nothing else in flight."""
        if self._suspects and alone:
            return self._suspects.popleft()
        return self._fresh.popleft() if self._fresh else None

    def is_suspect(self, unit: WorkUnit) -> bool:
        """Whether the unit has been in flight at a crash."""
        return unit.unit_id in self._suspect_ids

    def done(self) -> None:
        """Note that a unit was committed, so that engine and storage work."""
        self._num_failures_in_a_row = 0

    def with_attempts(self, report: UnitReport) -> UnitReport:
        """Add to a report what its worker cannot know: the attempts that failed before."""
        return replace(report, num_attempts=1 + self._num_attempts[report.unit_id])

    def failed(self, unit: WorkUnit, error: Exception) -> UnitFailure | None:
        """Take a unit back whose attempt raised; a UnitFailure means that it was the last one.

        Raises:
            RgptBatchError: Unit after unit fails.
        """
        # Second attempts come late, when only bad units are left: they say nothing of the others.
        # Nor does a damaged shard.
        if not self._num_attempts[unit.unit_id] and not isinstance(error, ShardError):
            self._note_failure(error)
        self._num_attempts[unit.unit_id] += 1
        if failure := self._last_attempt(unit, error):
            return failure
        self._queue_again(unit)
        return None

    def crashed(
        self, units: Sequence[WorkUnit], error: Exception, *, blame: bool = True
    ) -> list[UnitFailure]:
        """Take back the units that a dead worker had in flight; return those that are given up.

        Args:
            units: What was in flight.
            error: How the worker died.
            blame: Whether one of the units may have caused it.

        Raises:
            RgptBatchError: Worker after worker dies.
        """
        self._note_failure(error)
        failures = []
        for unit in units:
            # With others in flight nobody knows which unit did it: the last attempt is a lone one.
            limit = self._max_attempts if len(units) == 1 else self._max_attempts - 1
            if blame and self._num_attempts[unit.unit_id] < limit:
                self._num_attempts[unit.unit_id] += 1
            if failure := self._last_attempt(unit, error):
                failures.append(failure)
            elif blame:
                self._suspect_ids.add(unit.unit_id)
                self._suspects.append(unit)
            else:
                self._queue_again(unit)
        return failures

    def _queue_again(self, unit: WorkUnit) -> None:
        (self._suspects if self.is_suspect(unit) else self._fresh).append(unit)

    def _last_attempt(self, unit: WorkUnit, error: Exception) -> UnitFailure | None:
        num_attempts = self._num_attempts[unit.unit_id]
        if num_attempts < self._max_attempts:
            return None
        return UnitFailure(
            unit_id=unit.unit_id,
            num_rows=unit.num_rows,
            num_attempts=num_attempts,
            cause=describe(error),
            failed_at=time.time(),
        )

    def _note_failure(self, error: Exception) -> None:
        self._num_failures_in_a_row += 1
        if self._num_failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            kind = type(error) if isinstance(error, RgptBatchError) else EngineError
            raise kind(
                f"{self._num_failures_in_a_row} failures in a row and no unit done in between; "
                f"the last one: {error}"
            ) from error
