"""What is told about a running job."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from rgpt_batch.formatting import format_seconds
from rgpt_batch.job.progress import Tally
from tests.executors.workers import make_units, report


@pytest.mark.parametrize("jump", [-86_400.0, 0.0, 86_400.0])
def test_the_speed_does_not_depend_on_clocks_that_are_set(jump: float) -> None:
    tally = Tally(num_units=2, num_rows=10)
    now = time.time() + jump
    for unit in make_units(2):
        tally.add(replace(report(unit, "worker"), started_at=now - 5, finished_at=now))
    pairs_per_second, _, eta = tally.rates()
    assert pairs_per_second == pytest.approx(2, rel=0.05)
    assert eta == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.7, "1m00s"), (3599.6, "1h00m"), (90, "1m30s"), (11100, "3h05m")],
)
def test_duration_has_no_sixty_of_anything(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
