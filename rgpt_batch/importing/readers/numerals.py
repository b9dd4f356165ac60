"""Numbers in text files, as other tools write them.

Python's own reading takes more: `1_0` is 10 there, and so are digits of other scripts.
"""

from __future__ import annotations

import math

# What float32, in which trec_eval sorts, can hold.
MAX_SCORE = 3.4028234663852886e38


def parse_number(text: str) -> float:
    """Read 1, -2.5, .5 or 1e-3; raises ValueError where it is none, as float does."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"not a number: {text!r}")
    return float(text)


def is_score(number: float) -> bool:
    """Whether a number is finite, in float32 as well."""
    return math.isfinite(number) and abs(number) <= MAX_SCORE
