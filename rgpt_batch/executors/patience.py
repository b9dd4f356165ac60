"""How long a worker may be silent before it counts as hung."""

from __future__ import annotations

from collections.abc import Iterable

from rgpt_batch.records import UnitReport, WorkUnit

_LEAST_SECONDS = 600.0
# Units of equal size differ in speed, but none takes ten times as long as the others.
_FACTOR = 10.0
# Before the first unit is done, nothing is known of the engine. This is slow for any engine.
_FIRST_SECONDS_PER_ROW = 1.0


class Patience:
    """Learns from finished units how long the next one may take.

    Args:
        timeout_seconds: A limit that the user has set; it is the only one then.
    """

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout_seconds = timeout_seconds
        self._seconds = 0.0
        self._num_bytes = 0

    def learn(self, unit: WorkUnit, report: UnitReport) -> None:
        """Note how long a unit took."""
        self._seconds += report.read_seconds + report.engine_seconds + report.commit_seconds
        self._num_bytes += unit.num_bytes

    def seconds(self, units: Iterable[WorkUnit]) -> float:
        """Return how long a worker with these units in flight may take to finish one of them."""
        if self._timeout_seconds is not None:
            return self._timeout_seconds
        if not self._num_bytes:
            expected = max(unit.num_rows for unit in units) * _FIRST_SECONDS_PER_ROW
        else:
            largest = max(unit.num_bytes for unit in units)
            expected = _FACTOR * largest * self._seconds / self._num_bytes
        return max(_LEAST_SECONDS, expected)
