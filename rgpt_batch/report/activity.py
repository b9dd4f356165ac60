"""Speed over work time, of all runs together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from rgpt_batch.report.runs import SHORTEST_SECONDS, RunRecord, Spans, run_starts, spans

Values = npt.NDArray[np.float64]


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


def activity(records: Sequence[RunRecord], num_bins: int) -> Activity | None:
    """Compute speed over work time; None where no run finished a unit.

    Args:
        records: Oldest first.
        num_bins: About how many; no bin reaches from one run into the next.
    """
    units = spans(records)
    if not units:
        return None
    starts = run_starts(records)
    total = max(starts[-1] + records[-1].seconds, SHORTEST_SECONDS)
    bounds = [*starts, total]
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
