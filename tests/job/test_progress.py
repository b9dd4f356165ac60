"""What is told about a running job."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rgpt_batch.job.progress import ProgressDisplay, Tally
from rgpt_batch.job.terminal import Terminal
from rgpt_batch.output import open_store
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


def test_a_line_says_what_is_waited_for_until_the_first_unit_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(num_units=2, num_rows=10)
    activity = ["starting the engine"]
    first, _ = make_units(2)
    with ProgressDisplay(
        tally, open_store(str(tmp_path)), lambda: activity[0], Terminal()
    ) as display:
        said = capsys.readouterr().err
        assert re.fullmatch(r"[\d:]+ starting the engine: 0 of 10 pairs, no unit finished\n", said)
        display.add(report(first, "worker"))
    said = capsys.readouterr().err
    assert re.search(r"done: 5 of 10 pairs, [\d.,]+ pairs/s, \d+ tokens/s, 0 rejected", said)


def test_a_run_that_ends_before_any_unit_shows_no_speed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(num_units=2, num_rows=10, num_rows_before=5)
    with (
        pytest.raises(RuntimeError),
        ProgressDisplay(tally, open_store(str(tmp_path)), lambda: "scoring", Terminal()),
    ):
        raise RuntimeError
    assert capsys.readouterr().err.endswith(" failed: 5 of 10 pairs, no unit finished\n")
