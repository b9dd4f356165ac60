"""The units of all runs on one axis of time.

Runs lie minutes or days apart. *Work time* joins them: second 0 is the start of the first run, and
each run begins where the ones before have ended. Runs at the same time, as those of processes that
share a job, lie beside each other, as far as the clocks of their machines agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rgpt_batch.records import UnitReport
from rgpt_batch.report.runs import SHORTEST_SECONDS, RunRecord, worker_lanes, worker_lives

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The three phases of a unit, each as (start, end) in seconds of work time.

    Attributes:
        lane: From 0; the workers of a run have lanes of their own, except that one that replaces
            a dead one may take over its lane.
    """

    report: UnitReport
    run_number: int
    lane: int
    read: tuple[float, float]
    engine: tuple[float, float]
    commit: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activity:
    """Speed over work time.

    Attributes:
        edges: Shape (num_bins + 1,), seconds of work time.
        pairs_per_second: Shape (num_bins,); a unit's pairs are spread over its engine time.
        prompt_tokens_per_second: Shape (num_bins,); likewise.
        engine_busy_fraction: Shape (num_bins,); a worker counts from its first engine call to its
            last.
        run_starts: Where runs begin, seconds of work time.
    """

    edges: Values
    pairs_per_second: Values
    prompt_tokens_per_second: Values
    engine_busy_fraction: Values
    run_starts: tuple[float, ...]


def spans(records: Sequence[RunRecord]) -> list[Spans]:
    """Place all units in work time, in the order in which they began."""
    found = []
    shifts = [
        start - record.started_at
        for record, start in zip(records, _run_starts(records)[0], strict=True)
    ]
    lanes = worker_lanes(
        {
            (number, worker): (low + shift, high + shift)
            for number, (record, shift) in enumerate(zip(records, shifts, strict=True), 1)
            for worker, (low, high) in worker_lives(record.units).items()
        }
    )
    for number, (record, shift) in enumerate(zip(records, shifts, strict=True), 1):
        for unit in record.units:
            begin, end = unit.started_at + shift, unit.finished_at + shift
            scored = end - unit.commit_seconds
            found.append(
                Spans(
                    report=unit,
                    run_number=number,
                    lane=lanes[number, unit.worker],
                    read=(begin, begin + unit.read_seconds),
                    engine=(scored - unit.engine_seconds, scored),
                    commit=(scored, end),
                )
            )
    return sorted(found, key=lambda span: (span.read, span.report.unit_id))


def activity(records: Sequence[RunRecord], num_bins: int) -> Activity | None:
    """Compute speed over work time; None where no run finished a unit.

    Args:
        records: Oldest first.
        num_bins: About how many; no bin reaches from one run into the next.
    """
    units = spans(records)
    if not units:
        return None
    starts, end = _run_starts(records)
    total = max(end, SHORTEST_SECONDS)
    bounds = [*sorted(starts), total]
    edges = np.concatenate(
        [
            np.linspace(low, high, max(1, round(num_bins * (high - low) / total)), endpoint=False)
            for low, high in pairwise(bounds)
            if high > low
        ]
        + [[total]]
    )
    engine = np.array([span.engine for span in units])
    widths = np.diff(edges)

    def rate(amounts: Sequence[float], intervals: Values) -> Values:
        return np.diff(_accumulated(edges, intervals, np.asarray(amounts, np.float64))) / widths

    lives = _engine_lives(units)
    busy = rate([span.report.engine_seconds for span in units], engine)
    alive = rate([high - low for low, high in lives], lives)
    return Activity(
        edges=edges,
        pairs_per_second=rate([span.report.num_rows for span in units], engine),
        prompt_tokens_per_second=rate([span.report.num_prompt_tokens for span in units], engine),
        engine_busy_fraction=np.clip(busy / np.maximum(alive, 1e-9), 0, 1),
        run_starts=tuple(starts),
    )


def scoring_seconds(records: Sequence[RunRecord]) -> float:
    """Return how long units were in hand, from the first to the last of each run, in work time."""
    total, reached = 0.0, 0.0
    starts, _ = _run_starts(records)
    for start, record in sorted(zip(starts, records, strict=True), key=lambda pair: pair[0]):
        if record.units:
            low = start - record.started_at + min(unit.started_at for unit in record.units)
            high = start - record.started_at + max(unit.finished_at for unit in record.units)
            total += max(0.0, high - max(low, reached))
            reached = max(reached, high)
    return max(total, SHORTEST_SECONDS)


def _run_starts(records: Sequence[RunRecord]) -> tuple[list[float], float]:
    """Return when each run begins, and when the last one ends, in seconds of work time."""
    starts: list[float] = []
    # Where the runs lie that are at the same time as the last one.
    first_at = first = end = 0.0
    for record in records:
        since_first = record.started_at - first_at
        if not (starts and 0 <= since_first < end - first):
            first_at, first, since_first = record.started_at, end, 0.0
        starts.append(first + since_first)
        end = max(end, starts[-1] + record.seconds)
    return starts, end


def _accumulated(times: Values, intervals: Values, amounts: Values) -> Values:
    """Return what has come together by each time, if each amount comes evenly in its interval."""
    low, high = intervals[:, 0], intervals[:, 1]
    lengths = np.maximum(high - low, SHORTEST_SECONDS)
    return np.array([(amounts * np.clip((time - low) / lengths, 0, 1)).sum() for time in times])


def _engine_lives(units: Sequence[Spans]) -> Values:
    """Return every worker's first and last moment of engine time, shape (num_workers, 2)."""
    lives: dict[tuple[int, str], tuple[float, float]] = {}
    for span in units:
        worker = span.run_number, span.report.worker
        low, high = lives.get(worker, span.engine)
        lives[worker] = min(low, span.engine[0]), max(high, span.engine[1])
    return np.array(list(lives.values()))
