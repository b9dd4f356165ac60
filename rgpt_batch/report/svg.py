"""Plots as data: marks with attributes, which the template writes as SVG.

Coordinates are CSS pixels, from the top left. Colours are classes of the template's style sheet, so
that a plot follows the reader's light or dark scheme. All texts are plain; the template escapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from rgpt_batch.report.numbers import duration, nice_step, short

# Below the axis: its ticks and its label.
AXIS = 40.0
# Up to so many parts are drawn one by one and say what they are; more are merged.
MAX_SINGLE_PARTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """How wide a plot is, and where it begins and ends in there.

    A plot that is as wide as the page is drawn twice, since text that shrinks with a picture to the
    width of a phone cannot be read. Frames of one name have their axes in line.

    Attributes:
        name: Part of the plot's id, and the class by which the style sheet chooses.
        left: Pixels on the left of the axis, for its values.
        max_ticks: How many values a horizontal axis has room for.
    """

    name: str
    width: float
    left: float
    right: float
    max_ticks: int

    @property
    def end(self) -> float:
        """Where the axis ends."""
        return self.width - self.right


WIDE = Frame(name="wide", width=928.0, left=72.0, right=20.0, max_ticks=10)
NARROW = Frame(name="narrow", width=358.0, left=62.0, right=12.0, max_ticks=4)
SMALL = Frame(name="small", width=300.0, left=44.0, right=20.0, max_ticks=6)

_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One SVG element.

    Attributes:
        style: Its class.
        title: What a pointer that rests on it shows.
    """

    tag: str
    style: str
    attributes: dict[str, str]
    text: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps values to pixels, linearly.

    Attributes:
        low: Value at `start`.
        high: Value at `end`; above low.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def from_0(cls, highest: float, start: float, end: float) -> Self:
        """Return a scale whose last tick stands above the highest value."""
        step = nice_step(highest, 4)
        return cls(low=0, high=max(1, math.ceil(highest / step)) * step, start=start, end=end)

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, max_steps: int) -> list[float]:
        """Return round values between low and high."""
        step = nice_step(self.high - self.low, max_steps)
        first, last = round(self.low / step + 0.499999), round(self.high / step - 0.499999)
        return [i * step for i in range(first, last + 1)]

    def time_ticks(self, max_steps: int) -> list[float]:
        """Return round times between low and high, in seconds."""
        span = self.high - self.low
        if span < _TIME_STEPS[0] * max_steps:
            return self.ticks(max_steps)
        fitting = (float(step) for step in _TIME_STEPS if span / step <= max_steps)
        step = next(fitting, 86400 * nice_step(span / 86400, max_steps))
        return [i * step for i in range(int(self.low // step), int(self.high // step) + 1)]


@dataclass(slots=True, kw_only=True)
class Plot:
    """A picture under construction.

    Attributes:
        name: What the plot is called, in all frames.
        title: What it shows; read aloud instead of the picture, before `description`.
    """

    name: str
    title: str
    description: str
    frame: Frame
    height: float
    marks: list[Mark] = field(default_factory=list)

    @property
    def plot_id(self) -> str:
        """Unique in its document."""
        return f"{self.name}-{self.frame.name}"

    def rectangle(
        self, style: str, x: float, y: float, width: float, height: float, title: str | None = None
    ) -> None:
        """Add a filled rectangle."""
        place = {"x": x, "y": y, "width": max(width, 1.0), "height": max(height, 0.0)}
        self._add("rect", style, place, title=title)

    def line(self, style: str, x1: float, y1: float, x2: float, y2: float) -> None:
        """Add a straight line."""
        self._add("line", style, {"x1": x1, "y1": y1, "x2": x2, "y2": y2})

    def circle(self, style: str, x: float, y: float, radius: float, title: str) -> None:
        """Add a dot."""
        self._add("circle", style, {"cx": x, "cy": y, "r": radius}, title=title)

    def path(self, style: str, commands: str, title: str | None = None) -> None:
        """Add a path."""
        self._add("path", style, {"d": commands}, title=title)

    def text(self, style: str, x: float, y: float, text: str) -> None:
        """Add a line of text; its class tells its anchor."""
        self._add("text", style, {"x": x, "y": y}, text=text)

    def y_axis(self, scale: Scale, ticks: Iterable[float]) -> None:
        """Add grid lines, with their values left of them."""
        for tick in ticks:
            self.line("grid", self.frame.left, scale(tick), self.frame.end, scale(tick))
            self.text("tick end", self.frame.left - 6, scale(tick) + 4, short(tick))

    def x_axis(self, scale: Scale, y: float, ticks: Iterable[float], label: str) -> None:
        """Add an axis at the bottom."""
        self._x_axis(scale, y, [(tick, short(tick)) for tick in ticks], label)

    def time_axis(self, scale: Scale, y: float, label: str) -> None:
        """Add an axis of seconds at the bottom."""
        ticks = [
            (tick, duration(tick).replace("m00s", "m").replace("h00m", "h"))
            for tick in scale.time_ticks(self.frame.max_ticks)
        ]
        self._x_axis(scale, y, ticks, label)

    def _x_axis(
        self, scale: Scale, y: float, ticks: Sequence[tuple[float, str]], label: str
    ) -> None:
        self.line("axis", scale.start, y, scale.end, y)
        for tick, text in ticks:
            self.line("axis", scale(tick), y, scale(tick), y + 4)
            self.text("tick middle", scale(tick), y + 17, text)
        self.text("label middle", (scale.start + scale.end) / 2, y + 34, label)

    def _add(
        self,
        tag: str,
        style: str,
        attributes: Mapping[str, float | str],
        *,
        text: str | None = None,
        title: str | None = None,
    ) -> None:
        written = {
            name: value if isinstance(value, str) else pixel(value)
            for name, value in attributes.items()
        }
        self.marks.append(Mark(tag=tag, style=style, attributes=written, text=text, title=title))


def pixel(value: float) -> str:
    """Write a coordinate with at most one decimal."""
    text = f"{value:.1f}"
    return text.removesuffix(".0")


def box(x: float, y: float, width: float, height: float) -> str:
    """Return path commands for a rectangle."""
    w, h = pixel(max(width, 1.0)), pixel(height)
    return f"M{pixel(x)} {pixel(y)}h{w}v{h}h-{w}z"


def steps(edges: Sequence[float], tops: Sequence[float], bottom: float) -> str:
    """Return path commands for the area below a step function.

    Args:
        edges: Pixels, one more than tops.
        tops: Pixels.
        bottom: Pixel of the base line.
    """
    parts = [f"M{pixel(edges[0])} {pixel(bottom)}"]
    parts += [f"V{pixel(top)}H{pixel(edge)}" for top, edge in zip(tops, edges[1:], strict=True)]
    return "".join(parts) + f"V{pixel(bottom)}z"
