"""Which tokens hold a piece of a text."""

from __future__ import annotations

from typing import Any


def char_span(encoding: Any, first_char: int, end_char: int) -> tuple[int, int]:
    """Find the tokens that hold a piece of a text, and nothing of what stands behind it.

    A token that reaches into the piece from a blank before it counts as the piece's; one that
    reaches from the piece into what follows does not, so that what follows stays whole.

    Returns:
        Index of the first token, and of the one behind the last.
    """
    start, end = 0, len(encoding)
    while start < end and _chars(encoding, start)[1] <= first_char:
        start += 1
    while end > start and _chars(encoding, end - 1)[1] > end_char:
        end -= 1
    return start, end


def _chars(encoding: Any, token: int) -> tuple[int, int]:
    start, end = encoding.token_to_chars(token)
    return int(start), int(end)
