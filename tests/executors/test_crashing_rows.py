"""A row that kills whatever scores it costs a few workers and its own score, nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.executors.mortal import PlanJob
from tests.executors.workers import Journal, MakeExecutor, run
from tests.jobs import read_output

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("way", ["SIGKILL", "ENGINE-DEAD"])
def test_a_row_that_kills_the_engine_is_rejected_and_all_others_are_scored(
    ray_executor: MakeExecutor, mortal_job: PlanJob, way: str, tmp_path: Path, journal: Journal
) -> None:
    units, make_worker, finish, clean = mortal_job({57: way})
    done, failures = run(ray_executor(max_attempts=2), units, make_worker)
    assert (len(done), failures) == (3, {})
    rows = read_output(tmp_path / "scored").to_pylist()
    assert rows[57]["rejection"] == "ENGINE_CRASH"
    assert rows[57]["score"] is None
    assert (rows[57]["doc_id"], rows[57]["source_row"]) == ("d57", 57)
    assert rows[:57] + rows[58:] == clean[:57] + clean[58:]
    # The first worker; two for the unit, one or two for the pieces, two for the row.
    assert 5 <= len(journal.events("start")) <= 7

    summary = finish(quiet=True)
    assert summary.exit_code == 3
    assert summary.num_rejected == {"ENGINE_CRASH": 1}
    assert "1 rows have no score because they kill the engine" in summary.problems[0]
    assert not (tmp_path / "scored" / "_SUCCESS").exists()


def test_two_such_rows_in_different_units_are_both_found(
    ray_executor: MakeExecutor, mortal_job: PlanJob, tmp_path: Path, journal: Journal
) -> None:
    units, make_worker, _, clean = mortal_job({0: "SIGKILL", 119: "SIGKILL"})
    executor = ray_executor(num_workers=2, max_attempts=1)
    done, failures = run(executor, units, make_worker)
    assert (len(done), failures) == (3, {})
    rows = read_output(tmp_path / "scored").to_pylist()
    assert {i for i, row in enumerate(rows) if row["rejection"]} == {0, 119}
    assert rows[1:119] == clean[1:119]


def test_a_row_that_hangs_the_engine_is_rejected_too(
    ray_executor: MakeExecutor, mortal_job: PlanJob, tmp_path: Path
) -> None:
    units, make_worker, _, clean = mortal_job({57: "HANG"})
    executor = ray_executor(max_attempts=1, unit_timeout_seconds=4)
    done, failures = run(executor, units, make_worker)
    assert (len(done), failures) == (3, {})
    assert pq.read_table(tmp_path / "scored/part-000001.parquet").num_rows == 40
    rows = read_output(tmp_path / "scored").to_pylist()
    assert rows[57]["rejection"] == "ENGINE_CRASH"
    assert rows[:57] + rows[58:] == clean[:57] + clean[58:]
