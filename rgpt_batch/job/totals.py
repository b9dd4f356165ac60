"""Sums over finished units. Progress, summaries and reports all show these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
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


def total(units: Iterable[UnitReport]) -> Totals:
    """Sum up some units."""
    totals = Totals()
    for unit in units:
        totals.add(unit)
    return totals


def engine_busy_fraction(units: Sequence[UnitReport]) -> float:
    """Return engine seconds over the time from a worker's first engine call to its last."""
    busy = held = 0.0
    for worker in {unit.worker for unit in units}:
        mine = [unit for unit in units if unit.worker == worker]
        first = min(unit.started_at + unit.read_seconds for unit in mine)
        last = max(unit.finished_at - unit.commit_seconds for unit in mine)
        busy += sum(unit.engine_seconds for unit in mine)
        held += last - first
    return min(1.0, busy / held) if held > 0 else 0.0
