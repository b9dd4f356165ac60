"""Plots of values: distributions of scores and tokens, gains and losses of queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rgpt_batch.formatting import format_count
from rgpt_batch.report.numbers import nice_step, number, signed
from rgpt_batch.report.rows import Distribution
from rgpt_batch.report.svg import AXIS, MAX_SINGLE_PARTS, SMALL, Frame, Plot, Scale, steps


def histogram(
    distribution: Distribution,
    *,
    name: str,
    title: str,
    label: str,
    frame: Frame,
    decimals: int = 0,
) -> Plot:
    """Draw how many rows have which value; far outliers are counted, not drawn.

    Args:
        distribution: Of scores or token counts.
        name: See Plot.
        title: See Plot.
        label: Of the values, with their unit.
        frame: Of the plot.
        decimals: Of the values in texts.
    """
    height, max_bins = (190.0, 30) if frame is SMALL else (240.0, int(frame.width / 12))
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
        name=name,
        title=title,
        description=f"{number(distribution.num_rows)} rows, "
        f"median {number(median, decimals)}, from "
        f"{number(distribution.quantile(0), decimals)} to "
        f"{number(distribution.quantile(1), decimals)}.",
        frame=frame,
        height=height,
    )
    top, bottom = 40.0, height - AXIS
    x = Scale(
        low=first * bin_width - shift,
        high=(last + 1) * bin_width - shift,
        start=frame.left,
        end=frame.end,
    )
    y = Scale.from_0(float(counts.max()), bottom, top)
    plot.text("heading", frame.left, 12, title if frame is SMALL else "Rows")
    plot.y_axis(y, [tick for tick in y.ticks(4) if tick == int(tick)])
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
    plot.x_axis(x, bottom, x.ticks(frame.max_ticks), label)
    return plot


def _drawn_range(distribution: Distribution) -> tuple[float, float]:
    """Return the whole range, or without the outermost 0.1 % where these take half of it."""
    low, high = float(distribution.values[0]), float(distribution.values[-1])
    inner = distribution.quantile(0.001), distribution.quantile(0.999)
    if high - low > 2 * (inner[1] - inner[0]) > 0:
        half = distribution.cell / 2
        return inner[0] - half, inner[1] + half
    return low, high


def changes(differences: Sequence[tuple[str, float]], metric: str, frame: Frame) -> Plot:
    """Draw what every query gains or loses, best first.

    Args:
        differences: (query id, difference), worst first.
        metric: Name of the metric.
        frame: Of the plot.
    """
    values = list(differences)[::-1]
    num_gains = sum(value > 0 for _, value in values)
    num_losses = sum(value < 0 for _, value in values)
    num_same = len(values) - num_gains - num_losses
    height, top = 240.0, 26.0
    bottom = height - 30
    plot = Plot(
        name="changes",
        title=f"Difference in {metric} for every query",
        description=f"Better: {num_gains}, the same: {num_same}, worse: {num_losses} queries.",
        frame=frame,
        height=height,
    )
    limit = max(abs(value) for _, value in values) or 1.0
    lowest, highest = min(0.0, values[-1][1]), max(0.0, values[0][1])
    y = Scale(low=lowest - 0.04 * limit, high=highest + 0.04 * limit, start=bottom, end=top)
    x = Scale(low=0, high=len(values), start=frame.left, end=frame.end)
    plot.text("heading", frame.left, 12, f"Difference in {metric}, query by query")
    plot.y_axis(y, y.ticks(6))
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
    plot.text("label start", x.start, height - 8, f"better: {number(num_gains)}")
    if num_same:
        middle = (x.start + x.end) / 2
        plot.text("label middle", middle, height - 8, f"the same: {number(num_same)}")
    plot.text("label end", x.end, height - 8, f"worse: {number(num_losses)}")
    return plot
