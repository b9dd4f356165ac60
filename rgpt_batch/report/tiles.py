"""The figures at the top of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rgpt_batch.ranking.estimates import MetricResult
from rgpt_batch.ranking.evaluate import NUM_TOP
from rgpt_batch.report.facts import Report
from rgpt_batch.report.notes import (
    HIGH_REJECTED_FRACTION,
    HIGH_TRUNCATED_FRACTION,
    HIGH_UNJUDGED_FRACTION,
)
from rgpt_batch.report.numbers import number, p_value, percent, rate, signed
from rgpt_batch.report.tables import hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A figure, what it is, and a word on it.

    Attributes:
        warns: Whether it is so high that the reader must think about it.
    """

    name: str
    value: str
    note: str = ""
    warns: bool = False


def tiles(report: Report) -> Iterator[Tile]:
    """Yield them in order."""
    yield Tile(name="Rows", value=number(report.num_rows_committed), note=_rows(report))
    if report.quality:
        yield _metric(report.quality.metrics[0])
        unjudged = report.quality.evaluation.unjudged_fraction
        yield Tile(
            name=f"Unjudged in the top {NUM_TOP}",
            value=percent(unjudged),
            note="of the documents; they count as not relevant",
            warns=unjudged >= HIGH_UNJUDGED_FRACTION,
        )
    if speed := report.speed:
        yield Tile(
            name="Pairs/s", value=rate(speed.pairs_per_second), note=hardware(speed.hardware)
        )
        tokens = speed.mean_prompt_tokens
        yield Tile(
            name="Prompt tokens/s",
            value=rate(speed.prompt_tokens_per_second),
            note="" if tokens is None else f"{number(tokens, 1)} tokens per prompt",
        )
        yield Tile(
            name="Engine busy",
            value=percent(speed.engine_time.busy_fraction),
            note="from each worker's first engine call to its last",
        )
    if rows := report.rows:
        yield Tile(
            name="Rejected",
            value=number(rows.num_rejected),
            note=f"{percent(rows.rejected_fraction)} of the rows",
            warns=rows.rejected_fraction >= HIGH_REJECTED_FRACTION,
        )
        yield Tile(
            name="Truncated",
            value=number(rows.num_truncated),
            note=f"{percent(rows.truncated_fraction)} of the rows",
            warns=rows.truncated_fraction >= HIGH_TRUNCATED_FRACTION,
        )
    if cost := report.cost:
        yield Tile(
            name="Cost",
            value=f"{number(cost.total, 2)} {cost.currency}",
            note=f"{number(cost.worker_hours, 2)} worker-hours, start-up included",
        )


def per_row(num_tiles: int) -> int:
    """Return how many tiles to a row leave the smallest hole in the last one."""
    return min((4, 3, 5), key=lambda number: -num_tiles % number)


def _rows(report: Report) -> str:
    parts = [f"of {number(report.num_rows)}"] if report.state != "complete" else []
    if report.rows:
        parts.append(f"{number(report.rows.num_queries)} queries")
    return "; ".join(parts)


def _metric(result: MetricResult) -> Tile:
    note = f"95% interval {number(result.run.low, 4)} to {number(result.run.high, 4)}"
    if difference := result.difference:
        note = (
            f"{signed(difference.mean)} against the baseline, "
            f"[{signed(difference.low)}, {signed(difference.high)}], p {p_value(result.p_value)}"
        )
    return Tile(name=result.metric, value=number(result.run.mean, 4), note=note)
