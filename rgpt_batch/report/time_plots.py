"""Plots over work time: speed, and what every worker did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rgpt_batch.report.numbers import duration, number, rate
from rgpt_batch.report.runs import RunRecord
from rgpt_batch.report.svg import (
    AXIS,
    MAX_SINGLE_PARTS,
    Frame,
    Plot,
    Scale,
    box,
    steps,
)
from rgpt_batch.report.work_time import Activity, Spans

NUM_TIME_BINS = 160
MAX_LANES = 32

# Pixels; parts that are closer than this cannot be told apart.
_MERGE_GAP = 2.0
_MERGE_WIDTH = 4.0


def speed(activity: Activity, frame: Frame) -> Plot:
    """Draw pairs/s, prompt tokens/s and engine time over work time, one below the other."""
    panels = (
        ("Pairs per second", activity.pairs_per_second, "rate"),
        ("Prompt tokens per second", activity.prompt_tokens_per_second, "rate"),
        ("Engine busy, percent", 100 * activity.engine_busy_fraction, "engine"),
    )
    panel_height, gap = 84.0, 30.0
    plot = Plot(
        name="speed",
        title="Speed over work time",
        description="; ".join(f"{name}: up to {rate(values.max())}" for name, values, _ in panels),
        frame=frame,
        height=len(panels) * (panel_height + gap) + AXIS,
    )
    x = _time_scale(activity, frame)
    edges = [x(edge) for edge in activity.edges]
    bottom = 0.0
    for i, (name, values, style) in enumerate(panels):
        top = i * (panel_height + gap) + 22
        bottom = top + panel_height
        y = Scale.from_0(100.0 if style == "engine" else float(values.max()), bottom, top)
        plot.text("heading", x.start, top - 8, name)
        plot.y_axis(y, y.ticks(4))
        plot.path(f"{style} area", steps(edges, [y(value) for value in values], bottom))
    _draw_run_starts(plot, activity, x, 14.0, bottom)
    plot.time_axis(x, bottom, _time_label(activity))
    return plot


def timeline(
    units: Sequence[Spans], records: Sequence[RunRecord], activity: Activity, frame: Frame
) -> Plot:
    """Draw what every worker did over work time: reading above, engine, commit below."""
    num_lanes = min(MAX_LANES, max(unit.lane for unit in units) + 1)
    lane_height = 30.0 if num_lanes <= 8 else 18.0
    top = 22.0
    bottom = top + num_lanes * lane_height
    plot = Plot(
        name="timeline",
        title="Units per worker over work time",
        description=f"{len(units)} units on {num_lanes} workers; each unit is read, scored by the "
        "engine and committed.",
        frame=frame,
        height=bottom + AXIS,
    )
    x = _time_scale(activity, frame)
    shown = [unit for unit in units if unit.lane < num_lanes]
    for lane in range(num_lanes):
        y = top + lane * lane_height
        plot.text("tick end", frame.left - 6, y + lane_height / 2 + 4, f"worker {lane + 1}")
        plot.line("grid", x.start, y + lane_height - 1, x.end, y + lane_height - 1)
    if len(shown) <= MAX_SINGLE_PARTS:
        _draw_units(plot, shown, x, top, lane_height)
    else:
        _draw_merged_units(plot, shown, x, top, lane_height)
    for unit in shown:
        if unit.report.num_attempts > 1:
            tip = x(unit.engine[0]), top + unit.lane * lane_height + 1
            plot.path(
                "retry",
                f"M{tip[0]:.1f} {tip[1] + 8:.1f}l-5 -8h10z",
                f"unit {unit.report.unit_id}: attempt {unit.report.num_attempts}",
            )
    _draw_failures(plot, records, activity, x, top)
    _draw_run_starts(plot, activity, x, 14.0, bottom)
    plot.time_axis(x, bottom, _time_label(activity))
    return plot


def _draw_units(plot: Plot, units: Sequence[Spans], x: Scale, top: float, height: float) -> None:
    for unit in units:
        report = unit.report
        title = (
            f"unit {report.unit_id}, {report.worker}: {number(report.num_rows)} rows, "
            f"read {duration(report.read_seconds)}, engine {duration(report.engine_seconds)}, "
            f"commit {duration(report.commit_seconds)}"
        )
        for phase, low, high, y, phase_height in _phases(unit, top, height):
            left, right = x(low), x(high)
            inset = 0.5 if right - left > _MERGE_WIDTH else 0.0
            plot.rectangle(phase, left + inset, y, right - left - 2 * inset, phase_height, title)


def _draw_merged_units(
    plot: Plot, units: Sequence[Spans], x: Scale, top: float, height: float
) -> None:
    parts = sorted(
        (phase, y, phase_height, x(low), x(high))
        for unit in units
        for phase, low, high, y, phase_height in _phases(unit, top, height)
    )
    for (phase, y, phase_height), group in groupby(parts, key=lambda part: part[:3]):
        merged: list[tuple[float, float]] = []
        for *_, left, right in group:
            if merged and (
                left < merged[-1][1]
                or (left - merged[-1][1] < _MERGE_GAP and right - left < _MERGE_WIDTH)
            ):
                merged[-1] = merged[-1][0], max(right, merged[-1][1])
            else:
                merged.append((left, right))
        boxes = [box(left, y, right - left, phase_height) for left, right in merged]
        plot.path(phase, "".join(boxes))


def _phases(
    unit: Spans, top: float, height: float
) -> tuple[tuple[str, float, float, float, float], ...]:
    """Return (style, start, end, y, height) of the three phases."""
    y, thin = top + unit.lane * height + 1, (height - 4) * 0.2
    return (
        ("read", *unit.read, y, thin),
        ("engine", *unit.engine, y + thin + 0.5, 3 * thin - 1),
        ("commit", *unit.commit, y + 4 * thin, thin),
    )


def _draw_failures(
    plot: Plot, records: Sequence[RunRecord], activity: Activity, x: Scale, top: float
) -> None:
    for record, start in zip(records, activity.run_starts, strict=True):
        for failure in record.summary.failures[:MAX_SINGLE_PARTS]:
            if failure.failed_at is not None:
                center = x(start + failure.failed_at - record.started_at)
                plot.path(
                    "failure",
                    f"M{center - 4:.1f} {top - 10:.1f}l8 8m-8 0l8 -8",
                    f"unit {failure.unit_id} given up after {failure.num_attempts} attempts",
                )


def _time_scale(activity: Activity, frame: Frame) -> Scale:
    return Scale(low=0, high=float(activity.edges[-1]), start=frame.left, end=frame.end)


def _time_label(activity: Activity) -> str:
    joined = ", without the time between runs" if len(activity.run_starts) > 1 else ""
    return f"time since the start{joined}"


def _draw_run_starts(plot: Plot, activity: Activity, x: Scale, top: float, bottom: float) -> None:
    last_label = -math.inf
    for run_number, start in enumerate(activity.run_starts, 1):
        if run_number == 1:
            continue
        plot.line("boundary", x(start), top - 10, x(start), bottom)
        if x(start) - last_label > 44 and x(start) < x.end - 44:
            plot.text("small", x(start) + 4, top - 3, f"run {run_number}")
            last_label = x(start)
