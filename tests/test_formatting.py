"""Numbers and durations as people read them."""

from __future__ import annotations

import pytest

from rgpt_batch.formatting import format_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.7, "1m00s"), (3599.6, "1h00m"), (90, "1m30s"), (11100, "3h05m")],
)
def test_duration_has_no_sixty_of_anything(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
