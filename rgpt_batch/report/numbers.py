"""How a report writes numbers and texts."""

from __future__ import annotations

import math
import time

from rgpt_batch.formatting import format_seconds

_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_MINUS = "\u2212"
# Where there is no value.
DASH = "\u2013"
MAX_TEXT_CHARS = 200


def number(value: float | None, decimals: int = 0) -> str:
    """Format as `1,234.5`; None as a dash."""
    if value is None:
        return DASH
    return f"{value:,.{decimals}f}".replace("-", _MINUS)


def signed(value: float, decimals: int = 4) -> str:
    """Format with its sign: `+0.0120`."""
    return f"{value:+.{decimals}f}".replace("-", _MINUS)


def short(value: float) -> str:
    """Format in few characters, for axes: `12.5k`, `0.25`."""
    for size, letter in _SI:
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}".replace("-", _MINUS)
    return f"{value:.4g}".replace("-", _MINUS)


def rate(value: float) -> str:
    """Format a speed with three digits at least."""
    return number(value, 1 if abs(value) < 100 else 0)


def percent(share: float) -> str:
    """Format a share; tiny ones keep two digits, and only all is 100%."""
    percentage = 100 * share
    if percentage == 0 or percentage == 100:
        return f"{percentage:.0f}%"
    if percentage < 0.01:
        return "<0.01%"
    decimals = 2 if percentage < 1 or percentage >= 99.95 else 1
    # 99.999 is not all.
    return f"{min(percentage, 99.99):.{decimals}f}%"


def duration(seconds: float) -> str:
    """Format as 0.25s, 45s, 12m30s or 3h05m."""
    if 0 < seconds < 10:
        return f"{seconds:.2g}s"
    return format_seconds(seconds)


def moment(seconds: float) -> str:
    """Format seconds since the epoch as a date and time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def period(begin: float, end: float) -> str:
    """Format a beginning and an end: `2026-11-26 15:08 to 15:10 UTC`."""
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(each)) for each in (begin, end))
    if first == last:
        return f"{first} UTC"
    if first[:10] == last[:10]:
        last = last[11:]
    return f"{first} to {last} UTC"


def p_value(value: float | None) -> str:
    """Format the p value of a test."""
    if value is None:
        return DASH
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def brief(text: str | None) -> str:
    """Cut a text that may be of any length; None as a dash."""
    if text is None:
        return DASH
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"


def nice_step(span: float, max_steps: int) -> float:
    """Return the smallest of 1, 2, 5, 10, … that covers the span in so many steps."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / max_steps))
    return next(f * power for f in (1, 2, 5, 10, 20) if f * power * max_steps >= span * (1 - 1e-9))
