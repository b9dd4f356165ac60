"""Nobody waits for ever, and nobody is given up for being slow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rgpt_batch.executors.patience import Patience
from rgpt_batch.records import WorkUnit
from tests.executors.workers import make_units, report


def finished(patience: Patience, num_bytes: int, seconds: float) -> None:
    (unit,) = make_units(1)
    unit = replace(unit, num_bytes=num_bytes)
    patience.learn(unit, replace(report(unit, "worker"), engine_seconds=seconds))


def units_of(*sizes: int) -> list[WorkUnit]:
    return [replace(make_units(1)[0], num_bytes=size) for size in sizes]


def test_what_the_user_sets_is_what_counts() -> None:
    patience = Patience(7.5)
    finished(patience, 1, 10_000)
    assert patience.seconds(make_units(3)) == 7.5


def test_before_anything_is_known_a_row_may_take_a_second() -> None:
    assert Patience(None).seconds(make_units(2, num_rows=20_000)) == 20_000
    assert Patience(None).seconds(make_units(2, num_rows=5)) == 600


def test_afterwards_the_largest_unit_in_flight_may_take_ten_times_what_its_size_lets_expect() -> (
    None
):
    patience = Patience(None)
    finished(patience, 1000, 100)
    finished(patience, 3000, 300)
    assert patience.seconds(units_of(500, 2000)) == pytest.approx(10 * 200)


def test_fast_units_leave_ten_minutes() -> None:
    patience = Patience(None)
    finished(patience, 10**6, 0.5)
    assert patience.seconds(units_of(10**6)) == 600


def test_units_without_bytes_are_no_trouble() -> None:
    patience = Patience(None)
    finished(patience, 0, 0.0)
    assert patience.seconds(units_of(0)) == 600
