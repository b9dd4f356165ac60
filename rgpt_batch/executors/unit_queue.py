"""Units that wait for a worker, and what happens to a unit after a failed attempt."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from rgpt_batch.errors import EngineError, RgptBatchError, ShardError
from rgpt_batch.executors.base import Task, describe
from rgpt_batch.executors.crash_search import CrashSearch
from rgpt_batch.formatting import first_line
from rgpt_batch.output.begun import Begun
from rgpt_batch.output.claims import Claims
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit

_logger = logging.getLogger(__name__)

# After this many failures with no success in between, the units are not what is wrong.
_MAX_FAILURES_IN_A_ROW = 20
# Machines come and go, but a unit that has lost so many may be what takes them down.
_MAX_LOSSES = 20


class UnitQueue:
    """Units that wait, largest first, and how often each was tried.

    A unit that was in flight when a worker crashed is a suspect. Suspects wait apart and run alone,
    so that a further crash is blamed on the unit that causes it. After max_attempts crashes, or
    attempts in which the engine failed, the rows that cause it are searched for.

    Where other processes share the units, each is claimed before it is handed out, and those that
    others have claimed are kept aside: some may come back.

    Units that earlier runs had in hand when they died come last, and run alone: one of them may
    have ended those runs.
    """

    def __init__(
        self,
        units: Sequence[WorkUnit],
        max_attempts: int,
        claims: Claims | None = None,
        begun: Begun | None = None,
    ) -> None:
        largest_first = sorted(units, key=lambda unit: -unit.num_bytes)
        self._fresh = deque(claims.in_own_order(units) if claims else largest_first)
        self._unfinished: deque[WorkUnit] = deque()
        if begun:
            unfinished = [unit for unit in self._fresh if begun.times(unit.unit_id)]
            self._fresh = deque(unit for unit in self._fresh if not begun.times(unit.unit_id))
            # What has ended the most runs is the last of all.
            self._unfinished.extend(sorted(unfinished, key=lambda unit: begun.times(unit.unit_id)))
        self._begun = begun
        self._claims = claims
        self._elsewhere: list[WorkUnit] = []
        self._suspects: deque[WorkUnit] = deque()
        self._suspect_ids: set[str] = set()
        self._searches: dict[str, CrashSearch] = {}
        self._num_attempts: Counter[str] = Counter()
        self._num_losses: Counter[str] = Counter()
        self._num_tasks: Counter[str] = Counter()
        self._max_attempts = max_attempts
        self._num_failures_in_a_row = 0
        if claims:
            self._sort_out(claims)

    def __len__(self) -> int:
        """Return how many units may be handed out now."""
        return len(self._fresh) + len(self._suspects) + len(self._unfinished)

    @property
    def has_more(self) -> bool:
        """Whether units wait here, or may come back from other processes."""
        return bool(len(self) or self._elsewhere)

    def share(self, num_in_flight: int, num_workers: int) -> int:
        """Return how many units a worker may hold: what is left, by all workers; at least 1.

        Args:
            num_in_flight: Units that the workers of this process hold.
            num_workers: Of this process; others are taken to have as many.
        """
        num_processes = self._claims.num_processes if self._claims else 1
        num_left = len(self) + num_in_flight
        return max(1, math.ceil(num_left / (num_processes * max(1, num_workers))))

    def take(self, *, alone: bool) -> Task | None:
        """Hand out the next task; a suspect only if it runs alone on its worker."""
        task = self._next_task(alone=alone)
        if task is not None:
            self._num_tasks[task.unit.unit_id] += task.probe is None
            if self._begun:
                self._begun.note(task.unit.unit_id)
        return task

    def _next_task(self, *, alone: bool) -> Task | None:
        if self._suspects and alone:
            unit = self._suspects.popleft()
            if search := self._searches.get(unit.unit_id):
                rows = frozenset(search.crashing_rows)
                return Task(unit=unit, crashing_rows=rows, probe=search.next_rows)
            return Task(unit=unit)
        if self._claims is not None and self._claims.look():
            self._sort_out(self._claims)
        while self._fresh:
            unit = self._fresh.popleft()
            if self._claims is None or self._claims.take(unit.unit_id):
                return Task(unit=unit)
            self._elsewhere.append(unit)
        return Task(unit=self._unfinished.popleft()) if self._unfinished and alone else None

    def _sort_out(self, claims: Claims) -> None:
        """Leave out what others have done; what they have abandoned comes last."""
        both = (*self._fresh, *self._elsewhere)
        left = [unit for unit in both if not claims.is_over(unit.unit_id)]
        free = [unit for unit in left if claims.is_free(unit.unit_id)]
        free = free or [unit for unit in left if claims.is_abandoned(unit.unit_id)]
        self._fresh = deque(free)
        free_ids = {unit.unit_id for unit in free}
        self._elsewhere = [unit for unit in left if unit.unit_id not in free_ids]

    def _end(self, task: Task) -> None:
        if self._begun:
            self._begun.end(task.unit.unit_id)

    def is_suspect(self, unit: WorkUnit) -> bool:
        """Whether the unit runs alone: it was in flight at a crash, or the engine fails with it."""
        return unit.unit_id in self._suspect_ids

    def done(self, task: Task) -> None:
        """Note that a task succeeded, which shows that the engine works."""
        self._num_failures_in_a_row = 0
        self._end(task)
        if task.probe is not None:
            self._searches[task.unit.unit_id].survived()
            self._suspects.appendleft(task.unit)

    def with_attempts(self, report: UnitReport) -> UnitReport:
        """Add what the worker does not know: how often others have tried the unit before it.

        A unit that was there already is this run's own if one of them was lost with its outcome.
        """
        unit_id = report.unit_id
        return replace(
            report,
            num_attempts=1 + self._num_attempts[unit_id],
            committed=report.committed or self._num_tasks[unit_id] > 1,
        )

    def failed(self, task: Task, error: Exception) -> UnitFailure | None:
        """Take back a unit whose attempt failed; return a UnitFailure if that was its last one.

        Raises:
            RgptBatchError: Unit after unit fails.
        """
        self._end(task)
        unit = task.unit
        # Only first attempts count: second ones come last, when mostly bad units are left. Damaged
        # shards do not count either, since they say nothing about other units.
        if not self._num_attempts[unit.unit_id] and not isinstance(error, ShardError):
            self._note_failure(error)
        self._num_attempts[unit.unit_id] += 1
        if unit.unit_id in self._searches:
            return self._search_on(task, error)
        if self._num_attempts[unit.unit_id] >= self._max_attempts:
            # A shard that cannot be read, or a full disk, is no row's fault.
            if not isinstance(error, EngineError):
                return self._give_up(unit, error)
            _logger.warning(
                "unit %s: looking for the rows that the engine cannot score: %s",
                unit.unit_id,
                first_line(error),
            )
            self._searches[unit.unit_id] = CrashSearch(unit.num_rows)
            self._suspect_ids.add(unit.unit_id)
        (self._suspects if self.is_suspect(unit) else self._fresh).append(unit)
        return None

    def _search_on(self, task: Task, error: Exception) -> UnitFailure | None:
        """Tell the search of a unit's bad rows that its last task has failed."""
        is_rows_fault = task.probe is not None and isinstance(error, EngineError)
        if not is_rows_fault or not self._searches[task.unit.unit_id].crashed():
            return self._give_up(task.unit, error)
        self._suspects.append(task.unit)
        return None

    def crashed(
        self, tasks: Sequence[Task], error: Exception, *, blame: bool = True
    ) -> list[UnitFailure]:
        """Take back what a dead worker had in flight; return the units that are given up.

        Args:
            tasks: What was in flight.
            error: How the worker died.
            blame: Whether one of the tasks may have caused it; False where the machine was lost.

        Raises:
            RgptBatchError: Worker after worker dies.
        """
        if not blame and not any(self._is_unlucky(task.unit) for task in tasks):
            for task in tasks:
                waiting = self._suspects if self.is_suspect(task.unit) else self._fresh
                waiting.append(task.unit)
            return []
        self._note_failure(error)
        failures = (self._blame(task, error, alone=len(tasks) == 1) for task in tasks)
        return [failure for failure in failures if failure]

    def _is_unlucky(self, unit: WorkUnit) -> bool:
        """Count a lost machine; whether the unit has lost more of them than chance explains."""
        self._num_losses[unit.unit_id] += 1
        return self._num_losses[unit.unit_id] > _MAX_LOSSES

    def _blame(self, task: Task, error: Exception, *, alone: bool) -> UnitFailure | None:
        unit_id = task.unit.unit_id
        if unit_id in self._searches:
            self._num_attempts[unit_id] += 1
            return self._search_on(task, error)
        # With others in flight nobody knows which one did it. So the last attempt is alone.
        limit = self._max_attempts if alone else self._max_attempts - 1
        if self._num_attempts[unit_id] < limit:
            self._num_attempts[unit_id] += 1
        self._suspect_ids.add(unit_id)
        if self._num_attempts[unit_id] >= self._max_attempts:
            self._searches[unit_id] = CrashSearch(task.unit.num_rows)
        self._suspects.append(task.unit)
        return None

    def _give_up(self, unit: WorkUnit, error: Exception) -> UnitFailure:
        if self._claims is not None:
            self._claims.give_up(unit.unit_id)
        return UnitFailure(
            unit_id=unit.unit_id,
            num_rows=unit.num_rows,
            num_attempts=self._num_attempts[unit.unit_id],
            cause=describe(error),
            failed_at=time.time(),
        )

    def _note_failure(self, error: Exception) -> None:
        self._num_failures_in_a_row += 1
        if self._num_failures_in_a_row >= _MAX_FAILURES_IN_A_ROW:
            kind = type(error) if isinstance(error, RgptBatchError) else EngineError
            last = kind(
                f"{self._num_failures_in_a_row} failures in a row and nothing done in between; "
                f"the last one: {error}"
            )
            # Such as where the log of the worker is.
            for note in getattr(error, "__notes__", ()):
                last.add_note(note)
            raise last from error
