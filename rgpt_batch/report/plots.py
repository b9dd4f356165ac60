"""The plots of a report. What has many parts is merged down to what a screen can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from rgpt_batch.evaluation import Estimate, MetricResult
from rgpt_batch.report.numbers import duration, nice_step, number, rate, short, signed
from rgpt_batch.report.rows import Distribution
from rgpt_batch.report.runs import Activity, RunRecord, Spans
from rgpt_batch.report.svg import Plot, Scale, box, steps

WIDTH = 928.0
NUM_TIME_BINS = 160
MAX_LANES = 32

_LEFT, _RIGHT = 64.0, 12.0
_AXIS = 40.0
# Up to so many parts are drawn one by one and say what they are; more are merged.
_MAX_SINGLE_PARTS = 400
# Pixels; parts that are closer than this cannot be told apart.
_MERGE_GAP = 2.0
_MERGE_WIDTH = 4.0


def speed(activity: Activity) -> Plot:
    """Draw pairs/s, prompt tokens/s and engine time over work time, one below the other."""
    panels = (
        ("Pairs per second", activity.pairs_per_second, "rate"),
        ("Prompt tokens per second", activity.prompt_tokens_per_second, "rate"),
        ("Engine busy, percent of workers' time", 100 * activity.engine_busy_fraction, "engine"),
    )
    panel_height, gap = 84.0, 30.0
    plot = Plot(
        plot_id="speed",
        title="Speed over work time",
        description="; ".join(f"{name}: up to {rate(values.max())}" for name, values, _ in panels),
        width=WIDTH,
        height=len(panels) * (panel_height + gap) + _AXIS,
    )
    x = _time_scale(activity)
    edges = [x(edge) for edge in activity.edges]
    bottom = 0.0
    for i, (name, values, style) in enumerate(panels):
        top = i * (panel_height + gap) + 22
        bottom = top + panel_height
        highest = 100.0 if style == "engine" else float(values.max()) or 1.0
        y = Scale(low=0, high=highest * 1.05, start=bottom, end=top)
        plot.text("heading", x.start, top - 8, name)
        plot.y_axis(y, x.start, x.end, y.ticks(3))
        plot.path(f"{style} area", steps(edges, [y(value) for value in values], bottom))
    _draw_run_starts(plot, activity, x, 14.0, bottom)
    plot.time_axis(x, bottom, "work time")
    return plot


def timeline(
    units: Sequence[Spans], records: Sequence[RunRecord], activity: Activity
) -> Plot:
    """Draw what every worker did over work time: reading above, engine, commit below."""
    num_lanes = min(MAX_LANES, max(unit.lane for unit in units) + 1)
    lane_height = 30.0 if num_lanes <= 8 else 18.0
    top = 22.0
    bottom = top + num_lanes * lane_height
    plot = Plot(
        plot_id="timeline",
        title="Units per worker over work time",
        description=f"{len(units)} units on {num_lanes} workers; each unit is read, scored by the "
        "engine and committed.",
        width=WIDTH,
        height=bottom + _AXIS,
    )
    x = _time_scale(activity)
    shown = [unit for unit in units if unit.lane < num_lanes]
    for lane in range(num_lanes):
        y = top + lane * lane_height
        plot.text("tick end", _LEFT - 6, y + lane_height / 2 + 4, f"worker {lane + 1}")
        plot.line("grid", x.start, y + lane_height - 1, x.end, y + lane_height - 1)
    if len(shown) <= _MAX_SINGLE_PARTS:
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
    plot.time_axis(x, bottom, "work time")
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
        for failure in record.failures[:_MAX_SINGLE_PARTS]:
            if failure.failed_at is not None:
                center = x(start + failure.failed_at - record.started_at)
                plot.path(
                    "failure",
                    f"M{center - 4:.1f} {top - 10:.1f}l8 8m-8 0l8 -8",
                    f"unit {failure.unit_id} given up after {failure.num_attempts} attempts",
                )


def _time_scale(activity: Activity) -> Scale:
    return Scale(low=0, high=float(activity.edges[-1]), start=_LEFT, end=WIDTH - _RIGHT)


def _draw_run_starts(
    plot: Plot, activity: Activity, x: Scale, top: float, bottom: float
) -> None:
    last_label = -math.inf
    for run_number, start in enumerate(activity.run_starts, 1):
        if run_number == 1:
            continue
        plot.line("boundary", x(start), top - 10, x(start), bottom)
        if x(start) - last_label > 44 and x(start) < x.end - 44:
            plot.text("small", x(start) + 4, top - 3, f"run {run_number}")
            last_label = x(start)


def histogram(
    distribution: Distribution,
    *,
    plot_id: str,
    title: str,
    label: str,
    decimals: int = 0,
    width: float = WIDTH,
    height: float = 240.0,
    max_bins: int = 60,
) -> Plot:
    """Draw how many rows have which value; far outliers are counted, not drawn.

    Args:
        distribution: Of scores or token counts.
        plot_id: See Plot.
        title: See Plot.
        label: Of the values, with their unit.
        decimals: Of the values in texts.
        width: Of the plot.
        height: Of the plot.
        max_bins: Bars at most.
    """
    low, high = _drawn_range(distribution)
    bin_width = nice_step(high - low, max_bins)
    if distribution.cell == 0:
        bin_width = max(1.0, bin_width)
    # Token counts are whole numbers; a bar of one stands over its tick.
    shift = 0.5 if bin_width == 1 and distribution.cell == 0 else 0.0
    bins = np.floor(distribution.values / bin_width + 1e-9).astype(np.int64)
    is_drawn = (distribution.values >= low) & (distribution.values <= high)
    first, last = int(bins[is_drawn].min()), int(bins[is_drawn].max())
    counts = np.bincount(
        bins[is_drawn] - first,
        weights=distribution.counts[is_drawn],
        minlength=last - first + 1,
    )
    median = distribution.quantile(0.5)
    plot = Plot(
        plot_id=plot_id,
        title=title,
        description=f"{number(distribution.num_rows)} rows, "
        f"median {number(median, decimals)}, from "
        f"{number(distribution.quantile(0), decimals)} to "
        f"{number(distribution.quantile(1), decimals)}.",
        width=width,
        height=height,
    )
    left, top, bottom = (_LEFT if width == WIDTH else 44.0), 40.0, height - _AXIS
    x = Scale(
        low=first * bin_width - shift,
        high=(last + 1) * bin_width - shift,
        start=left,
        end=width - _RIGHT,
    )
    y = Scale(low=0, high=float(counts.max()) * 1.02, start=bottom, end=top)
    plot.text("heading", left, 12, title if width < WIDTH else "Rows")
    plot.y_axis(y, left, x.end, [tick for tick in y.ticks(5) if tick == int(tick)])
    bar_width = (x.end - x.start) / len(counts)
    gap = 1.0 if bar_width > 4 else 0.0
    for i, count in enumerate(counts):
        if count:
            value = (first + i) * bin_width
            text = number(value, decimals)
            if bin_width > 1 or distribution.cell:
                text += f" to {number(value + bin_width, decimals)}"
            plot.rectangle(
                "bar",
                x.start + i * bar_width + gap / 2,
                y(float(count)),
                bar_width - gap,
                bottom - y(float(count)),
                f"{text}: {number(float(count))} rows",
            )
    num_hidden = distribution.num_rows - int(counts.sum())
    if num_hidden:
        plot.text("small end", x.end, 12, f"{number(num_hidden)} outliers not drawn")
    if x.low <= median <= x.high:
        plot.line("median", x(median), top - 16, x(median), bottom)
        side = "start" if x(median) < (x.start + x.end) / 2 else "end"
        offset = 5 if side == "start" else -5
        plot.text(f"median {side}", x(median) + offset, top - 7, f"median {number(median, decimals)}")
    plot.x_axis(x, bottom, x.ticks(12 if width == WIDTH else 6), label)
    return plot


def _drawn_range(distribution: Distribution) -> tuple[float, float]:
    """Return the whole range, or without the outermost 0.1 % where these take half of it."""
    low, high = float(distribution.values[0]), float(distribution.values[-1])
    inner = distribution.quantile(0.001), distribution.quantile(0.999)
    if high - low > 2 * (inner[1] - inner[0]) > 0:
        half = distribution.cell / 2
        return inner[0] - half, inner[1] + half
    return low, high


def changes(differences: Sequence[tuple[str, float]], metric: str) -> Plot:
    """Draw what every query gains or loses, best first.

    Args:
        differences: (query id, difference), worst first.
        metric: Name of the metric.
    """
    values = list(differences)[::-1]
    num_gains = sum(value > 0 for _, value in values)
    num_losses = sum(value < 0 for _, value in values)
    height, top = 240.0, 26.0
    bottom = height - 30
    plot = Plot(
        plot_id="changes",
        title=f"Difference in {metric} for every query",
        description=f"{num_gains} queries gain, {num_losses} lose, "
        f"{len(values) - num_gains - num_losses} stay as they are.",
        width=WIDTH,
        height=height,
    )
    limit = max(abs(value) for _, value in values) or 1.0
    lowest, highest = min(0.0, values[-1][1]), max(0.0, values[0][1])
    y = Scale(low=lowest - 0.04 * limit, high=highest + 0.04 * limit, start=bottom, end=top)
    x = Scale(low=0, high=len(values), start=_LEFT, end=WIDTH - _RIGHT)
    plot.text("heading", _LEFT, 12, f"Difference in {metric}")
    plot.y_axis(y, x.start, x.end, y.ticks(6))
    bar_width = x(1) - x(0)
    gap = min(2.0, bar_width / 5)
    if len(values) <= _MAX_SINGLE_PARTS:
        for i, (query_id, value) in enumerate(values):
            tip, base = sorted((y(value), y(0)))
            style = "gain" if value > 0 else "loss"
            title = f"{query_id}: {signed(value)}"
            plot.rectangle(style, x(i) + gap / 2, tip, bar_width - gap, base - tip, title)
    else:
        # Every column of pixels shows the query whose place it is.
        columns = np.linspace(0, len(values) - 1, int(x.end - x.start)).round().astype(int)
        edges = [x.start + i for i in range(len(columns) + 1)]
        for style, pick in (("gain", max), ("loss", min)):
            tops = [y(pick(0.0, values[i][1])) for i in columns]
            plot.path(style, steps(edges, tops, y(0)))
    plot.line("axis", x.start, y(0), x.end, y(0))
    plot.text("label start", x.start, height - 8, f"{number(num_gains)} queries gain")
    plot.text("label end", x.end, height - 8, f"{number(num_losses)} queries lose")
    return plot


def intervals(metrics: Sequence[MetricResult]) -> Plot:
    """Draw each metric's mean and interval, of the run and of the baseline."""
    row_height, top = 38.0, 8.0
    bottom = top + len(metrics) * row_height
    plot = Plot(
        plot_id="intervals",
        title="Metrics with their 95 % intervals",
        description="; ".join(
            f"{result.metric}: {number(result.run.mean, 3)}"
            + (f" against {number(result.baseline.mean, 3)}" if result.baseline else "")
            for result in metrics
        ),
        width=WIDTH,
        height=bottom + 24,
    )
    found = [e for result in metrics for e in (result.run, result.baseline) if e]
    x = Scale(
        low=min(0.0, *(e.low for e in found)),
        high=max(1.0, *(e.high for e in found)),
        start=110.0,
        end=WIDTH - _RIGHT,
    )
    for tick in x.ticks(10):
        plot.line("grid", x(tick), top, x(tick), bottom)
        plot.text("tick middle", x(tick), bottom + 17, short(tick))
    for i, result in enumerate(metrics):
        y = top + (i + 0.5) * row_height
        plot.text("name end", x.start - 14, y + 4, result.metric)
        both = result.baseline is not None
        _draw_estimate(plot, "run", result.run, x, y - 6 if both else y)
        if result.baseline:
            _draw_estimate(plot, "baseline", result.baseline, x, y + 6)
    return plot


def _draw_estimate(plot: Plot, style: str, estimate: Estimate, x: Scale, y: float) -> None:
    plot.line(f"{style} whisker", x(estimate.low), y, x(estimate.high), y)
    plot.circle(
        f"{style} dot",
        x(estimate.mean),
        y,
        4.5,
        f"{style}: {number(estimate.mean, 4)} "
        f"[{number(estimate.low, 4)}, {number(estimate.high, 4)}]",
    )
