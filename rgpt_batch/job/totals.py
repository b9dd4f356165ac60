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
        num_duplicates: Those that another attempt had published first.
        num_rows: Their rows, rejected ones included.
        num_reused: Rows whose score was copied from an earlier job.
        num_prompts: Rows that are not rejected.
        num_rejected: Rejected rows per reason.
        num_prompt_tokens: Tokens that the engine was given.
        num_truncated_rows: Rows whose document was cut.
        engine_seconds: Time in which an engine scored.
    """

    num_units: int = 0
    num_retried: int = 0
    num_duplicates: int = 0
    num_rows: int = 0
    num_reused: int = 0
    num_prompts: int = 0
    num_rejected: Counter[str] = field(default_factory=Counter)
    num_prompt_tokens: int = 0
    num_truncated_rows: int = 0
    engine_seconds: float = 0.0

    def add(self, unit: UnitReport) -> None:
        """Count one more unit."""
        self.num_units += 1
        self.num_retried += unit.num_attempts > 1
        self.num_duplicates += not unit.committed
        self.num_rows += unit.num_rows
        self.num_reused += unit.num_reused
        self.num_prompts += unit.num_rows - sum(unit.num_rejected.values())
        self.num_rejected.update(unit.num_rejected)
        self.num_prompt_tokens += unit.num_prompt_tokens
        self.num_truncated_rows += unit.num_truncated_rows
        self.engine_seconds += unit.engine_seconds


def total(units: Iterable[UnitReport]) -> Totals:
    """Sum up some units."""
    totals = Totals()
    for unit in units:
        totals.add(unit)
    return totals


class EngineTimes:
    """How long workers have had an engine, and how long it was at work."""

    def __init__(self) -> None:
        self._busy = 0.0
        # By worker: its first engine call, and the end of its last.
        self._held: dict[str, tuple[float, float]] = {}

    def add(self, unit: UnitReport) -> None:
        """Count one more unit."""
        self._busy += unit.engine_seconds
        began = unit.started_at + unit.read_seconds
        ended = unit.finished_at - unit.commit_seconds
        first, last = self._held.get(unit.worker, (began, ended))
        self._held[unit.worker] = min(first, began), max(last, ended)

    @property
    def busy_fraction(self) -> float:
        """Engine seconds over the time from a worker's first engine call to its last."""
        held = sum(last - first for first, last in self._held.values())
        return min(1.0, self._busy / held) if held > 0 else 0.0


def engine_busy_fraction(units: Iterable[UnitReport]) -> float:
    """Return the busy fraction of some units; see EngineTimes."""
    times = EngineTimes()
    for unit in units:
        times.add(unit)
    return times.busy_fraction
