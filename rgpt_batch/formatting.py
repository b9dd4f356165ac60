"""Numbers, durations and errors as people read them."""

from __future__ import annotations


def format_seconds(seconds: float) -> str:
    """Format a duration as 45s, 12m30s or 3h05m."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest}s"
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def format_count(number: float, noun: str) -> str:
    """Format a number and what it counts: `1 worker`, `1,024 workers`."""
    digits = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{digits} {noun}{'' if number == 1 else 's'}"


def format_bytes(number: float) -> str:
    """Format a number of bytes: `512 MiB`, `23.4 GiB`."""
    if number < 2**30:
        return f"{number / 2**20:.0f} MiB"
    return f"{number / 2**30:.1f} GiB"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return str(error).partition("\n")[0].strip() or type(error).__name__


def with_unit(number: str, unit: str) -> str:
    """Write a unit behind a number; some quantities have none."""
    return f"{number} {unit}".rstrip()
