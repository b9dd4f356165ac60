"""Metrics with their intervals, and the paired difference: the question is whether it is 0."""

from __future__ import annotations

from collections.abc import Sequence

from rgpt_batch.ranking.estimates import Estimate, MetricResult
from rgpt_batch.report.numbers import nice_step, number, short, signed
from rgpt_batch.report.svg import NARROW, Frame, Plot, Scale

_ROW, _TOP, _BELOW, _GAP = 38.0, 26.0, 26.0, 18.0
_NAMES = 72.0


def intervals(metrics: Sequence[MetricResult], frame: Frame) -> Plot:
    """Draw each metric's mean and interval, of the run and of the baseline, and the difference.

    The difference stands beside the values, in a narrow frame below them.
    """
    has_baseline = metrics[0].baseline is not None
    panel_height = _TOP + len(metrics) * _ROW + _BELOW
    stacked = has_baseline and frame is NARROW
    plot = Plot(
        name="intervals",
        title="Metrics with their 95 % intervals",
        description="; ".join(map(_described, metrics)),
        frame=frame,
        height=2 * panel_height + _GAP if stacked else panel_height,
    )
    middle = frame.end if stacked or not has_baseline else 0.56 * frame.width
    _draw_values(plot, metrics, _NAMES + 14, middle)
    if has_baseline and stacked:
        _draw_differences(plot, metrics, _NAMES + 14, frame.end, panel_height + _GAP)
    elif has_baseline:
        _draw_differences(plot, metrics, middle + _NAMES + 30, frame.end, 0.0)
    return plot


def _described(result: MetricResult) -> str:
    text = f"{result.metric}: {number(result.run.mean, 3)}"
    if result.baseline and result.difference:
        text += (
            f" against {number(result.baseline.mean, 3)}, difference "
            f"{signed(result.difference.mean, 3)}, from {signed(result.difference.low, 3)} to "
            f"{signed(result.difference.high, 3)}"
        )
    return text


def _draw_values(plot: Plot, metrics: Sequence[MetricResult], start: float, end: float) -> None:
    found = [e for result in metrics for e in (result.run, result.baseline) if e]
    highest = max(e.high for e in found) or 1.0
    step = nice_step(highest, plot.frame.max_ticks // 2 + 2)
    x = Scale(
        low=min(0.0, *(e.low for e in found)), high=highest + 0.3 * step, start=start, end=end
    )
    _draw_axis(plot, x, metrics, 0.0, "Value and 95% interval")
    for i, result in enumerate(metrics):
        y = _TOP + (i + 0.5) * _ROW
        _draw_estimate(plot, "run", result.run, x, y - 6 if result.baseline else y)
        if result.baseline:
            _draw_estimate(plot, "baseline", result.baseline, x, y + 6)


def _draw_differences(
    plot: Plot, metrics: Sequence[MetricResult], start: float, end: float, top: float
) -> None:
    found = [result.difference for result in metrics if result.difference]
    # 0 is always in the picture.
    low = min(0.0, *(e.low for e in found))
    high = max(0.0, *(e.high for e in found))
    room = 0.06 * (high - low) or 0.01
    x = Scale(low=low - room, high=high + room, start=start, end=end)
    _draw_axis(plot, x, metrics, top, "Difference, paired by query")
    plot.line("zero", x(0), top + _TOP, x(0), top + _TOP + len(metrics) * _ROW)
    for i, result in enumerate(metrics):
        if result.difference:
            y = top + _TOP + (i + 0.5) * _ROW
            _draw_estimate(plot, "difference", result.difference, x, y)


def _draw_axis(
    plot: Plot, x: Scale, metrics: Sequence[MetricResult], top: float, heading: str
) -> None:
    bottom = top + _TOP + len(metrics) * _ROW
    plot.text("heading", x.start - _NAMES if plot.frame is NARROW else x.start, top + 12, heading)
    for tick in x.ticks(max(3, round((x.end - x.start) / 70))):
        plot.line("grid", x(tick), top + _TOP, x(tick), bottom)
        plot.text("tick middle", x(tick), bottom + 17, short(tick))
    for i, result in enumerate(metrics):
        plot.text("name end", x.start - 12, top + _TOP + (i + 0.5) * _ROW + 4, result.metric)


def _draw_estimate(plot: Plot, style: str, estimate: Estimate, x: Scale, y: float) -> None:
    write = signed if style == "difference" else number
    plot.line(f"{style} whisker", x(estimate.low), y, x(estimate.high), y)
    plot.circle(
        f"{style} dot",
        x(estimate.mean),
        y,
        4.5,
        f"{style}: {write(estimate.mean, 4)} [{write(estimate.low, 4)}, {write(estimate.high, 4)}]",
    )
