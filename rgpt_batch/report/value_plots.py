"""Plots of values: distributions of scores and tokens, metrics, gains and losses of queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rgpt_batch.formatting import format_count
from rgpt_batch.ranking.evaluate import Estimate, MetricResult
from rgpt_batch.report.numbers import nice_step, number, short, signed
from rgpt_batch.report.rows import Distribution
from rgpt_batch.report.svg import AXIS, LEFT, MAX_SINGLE_PARTS, RIGHT, WIDTH, Plot, Scale, steps


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
    # Few rows in narrow bins would show noise; Rice rule, with finer bins.
    num_bins = min(max_bins, math.ceil(3 * distribution.num_rows ** (1 / 3)))
    bin_width = nice_step(high - low, num_bins)
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
    left, top, bottom = (LEFT if width == WIDTH else 44.0), 40.0, height - AXIS
    x = Scale(
        low=first * bin_width - shift,
        high=(last + 1) * bin_width - shift,
        start=left,
        end=width - RIGHT,
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
        plot.text("small end", x.end, 12, f"{format_count(num_hidden, 'outlier')} not drawn")
    if x.low <= median <= x.high:
        plot.line("median", x(median), top - 16, x(median), bottom)
        side = "start" if x(median) < (x.start + x.end) / 2 else "end"
        offset = 5 if side == "start" else -5
        plot.text(
            f"median {side}", x(median) + offset, top - 7, f"median {number(median, decimals)}"
        )
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
    num_same = len(values) - num_gains - num_losses
    height, top = 240.0, 26.0
    bottom = height - 30
    plot = Plot(
        plot_id="changes",
        title=f"Difference in {metric} for every query",
        description=f"Queries that gain: {num_gains}, that lose: {num_losses}, that stay as they "
        f"are: {num_same}.",
        width=WIDTH,
        height=height,
    )
    limit = max(abs(value) for _, value in values) or 1.0
    lowest, highest = min(0.0, values[-1][1]), max(0.0, values[0][1])
    y = Scale(low=lowest - 0.04 * limit, high=highest + 0.04 * limit, start=bottom, end=top)
    x = Scale(low=0, high=len(values), start=LEFT, end=WIDTH - RIGHT)
    plot.text("heading", LEFT, 12, f"Difference in {metric}, query by query")
    plot.y_axis(y, x.start, x.end, y.ticks(6))
    bar_width = x(1) - x(0)
    gap = min(2.0, bar_width / 5)
    if len(values) <= MAX_SINGLE_PARTS:
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
    plot.text("label start", x.start, height - 8, f"gain: {number(num_gains)}")
    if num_same:
        middle = (x.start + x.end) / 2
        plot.text("label middle", middle, height - 8, f"unchanged: {number(num_same)}")
    plot.text("label end", x.end, height - 8, f"lose: {number(num_losses)}")
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
        end=WIDTH - RIGHT,
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
