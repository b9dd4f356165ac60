"""Outputs that were complete once, run again: by one command, or by two that meet."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.jobs import Finish, Job, Start
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import parts, rgpt_batch


@pytest.fixture
def finished(clean_output: Path, tmp_path: Path) -> Path:
    """A copy of a complete output, which the test may change."""
    return Path(shutil.copytree(clean_output, tmp_path / "scored"))


# One run


def test_success_is_withdrawn_before_a_missing_unit_is_scored(
    job: Job, finished: Path, start: Start, finish: Finish, clean_rows: pa.Table
) -> None:
    before = identities(finished)
    (finished / "part-000007.parquet").unlink()
    del before["part-000007.parquet"]
    code, said = finish(rgpt_batch("rank", finished, "--output", finished / "run.parquet"))
    assert code == 2
    assert "its _SUCCESS is out of date: part-000007.parquet is missing" in said
    code, said = finish(rgpt_batch("status", finished))
    assert said.splitlines()[0].split() == ["state", "unfinished"]
    assert "note         its _SUCCESS is out of date: part-000007.parquet is missing" in said

    process = start([*job.score(finished), "-o", "engine.fake_seconds_per_pair=3600"])
    process.wait_until(lambda: "scoring:" in process.output)
    process.kill_group()
    assert not (finished / "_SUCCESS").exists()
    assert len(parts(finished)) == job.num_units - 1
    status = json.loads(finish(rgpt_batch("status", finished, "--json"))[1])
    assert status["complete"] is False
    assert status["num_units_committed"] == job.num_units - 1

    code, said = finish(job.score(finished))
    assert code == 0, said
    assert "4 in this run and 92 before" in said
    assert before.items() <= identities(finished).items()
    assert row_differences(clean_rows, read_output(finished)) == []
    assert (finished / "_SUCCESS").exists()


def test_a_complete_output_is_not_read_again(job: Job, finished: Path, finish: Finish) -> None:
    success = (finished / "_SUCCESS").read_bytes()
    part = finished / "part-000003.parquet"
    part.write_bytes(bytes(part.stat().st_size))
    code, said = finish(job.score(finished))
    assert code == 0, said
    assert "rejected     3 (NULL_QUERY 3)" in said
    assert (finished / "_SUCCESS").read_bytes() == success
    # This is what verify is for.
    code, said = finish(rgpt_batch("verify", finished))
    assert code == 3
    assert "part-000003.parquet: its checksum differs from _SUCCESS" in said


def test_damaged_and_foreign_files_are_problems_of_the_summary(
    job: Job, finished: Path, finish: Finish
) -> None:
    (finished / "_SUCCESS").unlink()
    part = finished / "part-000003.parquet"
    os.truncate(part, part.stat().st_size - 20)
    shutil.copy(finished / "part-000001.parquet", finished / "part-000002.parquet")
    code, said = finish(job.score(finished))
    assert code == 3, said
    assert "rows         96, of which 0 in this run and 96 before" in said
    assert f"problem      {part}: not a readable Parquet file: " in said
    assert "part-000002.parquet: holds the rows of unit 000001. Delete it and run" in said
    assert not (finished / "_SUCCESS").exists()
    part.unlink()
    (finished / "part-000002.parquet").unlink()
    code, said = finish(job.score(finished))
    assert code == 0, said
    assert "8 in this run and 88 before" in said


def test_a_record_that_cannot_be_written_is_a_warning(
    job: Job, finish: Finish, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    (output / "_rgpt" / "status.json").mkdir(parents=True)
    code, said = finish(job.score(output, "--quiet"))
    assert code == 0, said
    assert "warning: a record is missing: " in said
    assert "status.json: cannot be written" in said
    assert row_differences(clean_rows, read_output(output)) == []
    assert (output / "_SUCCESS").exists()
    (record,) = (output / "_rgpt" / "runs").glob("*.json")
    assert json.loads(record.read_text())["state"] == "complete"


def test_success_is_withdrawn_where_a_file_goes_while_the_command_runs(
    job: Job, finished: Path, start: Start
) -> None:
    process = start(job.score(finished), held_at="os.rename run-")
    process.wait_until_held()
    (finished / "part-000003.parquet").unlink()
    process.let_go()
    assert process.wait() == 3, process.output
    assert "1 of 24 units (4 rows) are not scored" in process.output
    assert not (finished / "_SUCCESS").exists()


# Two runs


@pytest.mark.parametrize("place", ["os.rename _SUCCESS", "os.rename status.json", "os.link part-"])
def test_a_run_that_finishes_leaves_the_staged_files_of_another_alone(
    job: Job,
    start: Start,
    finish: Finish,
    clean_rows: pa.Table,
    tmp_path: Path,
    place: str,
) -> None:
    output = tmp_path / "scored"
    slower = start(job.score(output), held_at=place)
    slower.wait_until_held()
    code, said = finish(job.score(output))
    assert code == 0, said
    slower.let_go()
    assert slower.wait() == 0, slower.output
    assert "warning" not in slower.output
    assert row_differences(clean_rows, read_output(output)) == []
    code, said = finish(rgpt_batch("verify", output))
    assert code == 0, said
    assert list((output / "_rgpt" / "staging").iterdir()) == []


def test_a_success_that_another_run_declares_meanwhile_is_there_at_the_end(
    job: Job, finished: Path, start: Start, finish: Finish, clean_rows: pa.Table
) -> None:
    (finished / "part-000007.parquet").unlink()
    # It has seen that _SUCCESS is false, and is about to delete it.
    slower = start(job.score(finished), held_at="os.remove _SUCCESS")
    slower.wait_until_held()
    code, said = finish(job.score(finished))
    assert code == 0, said
    slower.let_go()
    assert slower.wait() == 0, slower.output
    assert "0 in this run and 96 before" in slower.output
    code, said = finish(rgpt_batch("verify", finished))
    assert code == 0, said
    assert row_differences(clean_rows, read_output(finished)) == []
