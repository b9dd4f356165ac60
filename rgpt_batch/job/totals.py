"""Sums over finished units. Progress, summaries and reports all show these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rgpt_batch.records import UnitReport


@dataclass(slots=True, kw_only=True)
class Totals:
    """What some units come to.

    Attributes:
        num_units: How many there are.
        num_retried: Those that took more than one attempt.
        num_duplicates: Those that another run had published first.
        num_rows: Their rows, rejected ones included.
        num_duplicate_rows: Those of them that another run had published first.
        num_reused: Rows whose score was copied from an earlier job.
        num_prompts: Rows that are not rejected.
        num_rejected: Rejected rows per reason.
        num_prompt_tokens: Tokens that the engine was given.
        num_truncated_rows: Rows whose document was cut.
        engine_seconds: Time in which an engine scored.
        engines: Methods that scored.
    """

    num_units: int = 0
    num_retried: int = 0
    num_duplicates: int = 0
    num_rows: int = 0
    num_duplicate_rows: int = 0
    num_reused: int = 0
    num_prompts: int = 0
    num_rejected: Counter[str] = field(default_factory=Counter)
    num_prompt_tokens: int = 0
    num_truncated_rows: int = 0
    engine_seconds: float = 0.0
    engines: set[str] = field(default_factory=set)

    @property
    def num_rows_committed(self) -> int:
        """Rows that are in the output as these units' reports say them."""
        return self.num_rows - self.num_duplicate_rows

    def add(self, unit: UnitReport) -> None:
        """Count one more unit."""
        self.num_units += 1
        self.num_retried += unit.num_attempts > 1
        self.num_duplicates += not unit.committed
        self.num_rows += unit.num_rows
        self.num_duplicate_rows += 0 if unit.committed else unit.num_rows
        self.num_reused += unit.num_reused
        self.num_prompts += unit.num_rows - sum(unit.num_rejected.values())
        self.num_rejected.update(unit.num_rejected)
        self.num_prompt_tokens += unit.num_prompt_tokens
        self.num_truncated_rows += unit.num_truncated_rows
        self.engine_seconds += unit.engine_seconds
        self.engines.add(unit.engine)


def total(units: Iterable[UnitReport]) -> Totals:
    """Sum up some units."""
    totals = Totals()
    for unit in units:
        totals.add(unit)
    return totals


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTime:
    """How long workers scored, and how much of it their engines were at work.

    A worker scores from its first engine call to its last. So the start of engines does not count:
    it takes the same time whatever is scored after it.

    Attributes:
        busy_seconds: Engines at work, all workers together.
        scoring_seconds: From each worker's first engine call to its last, all workers together.
    """

    busy_seconds: float
    scoring_seconds: float

    @property
    def busy_fraction(self) -> float:
        """Share of the workers' scoring time in which their engines were at work."""
        if self.scoring_seconds <= 0:
            return 0.0
        return min(1.0, self.busy_seconds / self.scoring_seconds)


class EngineTimes:
    """Sums up the time of workers, unit by unit."""

    def __init__(self) -> None:
        self._busy = 0.0
        # By worker: its first engine call, and the end of its last.
        self._spans: dict[str, tuple[float, float]] = {}

    def add(self, unit: UnitReport) -> None:
        """Count one more unit."""
        self._busy += unit.engine_seconds
        first = unit.started_at + unit.read_seconds
        last = unit.finished_at - unit.commit_seconds
        low, high = self._spans.get(unit.worker, (first, last))
        self._spans[unit.worker] = min(low, first), max(high, last)

    @property
    def total(self) -> EngineTime:
        """The time of all of them."""
        scoring = sum(high - low for low, high in self._spans.values())
        return EngineTime(busy_seconds=self._busy, scoring_seconds=scoring)


def engine_time(units: Iterable[UnitReport]) -> EngineTime:
    """Sum up the time of all workers that scored some units."""
    times = EngineTimes()
    for unit in units:
        times.add(unit)
    return times.total
