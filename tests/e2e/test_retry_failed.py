"""Failed units stay on record until they are scored, and can be scored by themselves."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.e2e.jobs import Finish, Job, Start, write_job
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import held_after, parts, rgpt_batch

FailedJob = tuple[Job, Path, Callable[[], Any]]


NUM_FAILED = 12


def failed_units(output: Path) -> set[str]:
    return {path.stem for path in (output / "_rgpt" / "failed").glob("*.json")}


@pytest.fixture
def failed_job(tmp_path: Path, tiny_tokenizer: Path, start: Start) -> FailedJob:
    """A job whose second shard went missing while it ran; returns job, output, and a repair."""
    job, output = write_job(tmp_path / "job", tiny_tokenizer), tmp_path / "scored"
    shard, away = job.pairs / "pairs-1.parquet", tmp_path / "away"
    # Before the second shard's turn comes.
    process = start(job.score(output), held_at=held_after(1))
    process.wait_until(lambda: len(parts(output)) >= 1)
    shard.rename(away)
    process.let_go()
    assert process.wait() == 3, process.output
    assert len(failed_units(output)) >= NUM_FAILED - 4
    return job, output, lambda: away.rename(shard)


def test_failed_units_are_retried_and_no_others(
    failed_job: FailedJob, finish: Finish, clean_rows: pa.Table, tmp_path: Path
) -> None:
    job, output, repair = failed_job
    # A unit that is missing without having failed.
    parts(output)[0].unlink()
    before, failed = identities(output), failed_units(output)
    repair()
    code, said = finish(rgpt_batch("retry-failed", output))
    assert code == 3, said
    assert f"{len(failed) * 4} in this run" in said
    assert "1 of 24 units (4 rows) are not scored" in said
    assert failed_units(output) == set()
    found = identities(output)
    assert before.items() <= found.items()
    assert len(found) - len(before) == len(failed)
    code, said = finish(job.score(output))
    assert code == 0, said
    columns = [name for name in clean_rows.column_names if name != "source_file"]
    assert row_differences(clean_rows.select(columns), read_output(output).select(columns)) == []

    code, said = finish(rgpt_batch("retry-failed", output))
    assert code == 0, said
    assert "0 in this run" in said


def test_units_that_fail_again_stay_on_record_with_their_cause(
    failed_job: FailedJob, finish: Finish
) -> None:
    _, output, repair = failed_job
    failed = failed_units(output)
    code, said = finish(rgpt_batch("retry-failed", output))
    # The plan cannot even be checked without the file.
    assert code == 2, said
    assert "pairs-1.parquet: no such file or folder" in said
    assert failed_units(output) == failed
    repair()
    code, _ = finish(rgpt_batch("retry-failed", output))
    assert code == 0


def test_a_retry_that_is_killed_forgets_no_failed_unit(
    failed_job: FailedJob, start: Start, finish: Finish
) -> None:
    job, output, repair = failed_job
    repair()
    num_failed, num_before = len(failed_units(output)), len(parts(output))
    record = json.loads(sorted((output / "_rgpt" / "runs").glob("*.json"))[-1].read_bytes())
    assert record["state"] == "incomplete"
    process = start(rgpt_batch("retry-failed", output), held_at=held_after(1))
    process.wait_until(lambda: len(parts(output)) > num_before)
    process.send(signal.SIGKILL)
    process.wait()
    assert len(failed_units(output)) == num_failed
    # Even a run that had no time to say anything is on record.
    record = json.loads(sorted((output / "_rgpt" / "runs").glob("*.json"))[-1].read_bytes())
    assert record["state"] == "running"
    status = json.loads(finish(rgpt_batch("status", output, "--json"))[1])
    assert len(status["failed_units"]) == job.num_units - len(parts(output))
    code, said = finish(rgpt_batch("retry-failed", output))
    assert code == 0, said
    assert failed_units(output) == set()


def test_a_folder_without_a_job_has_nothing_to_retry(finish: Finish, tmp_path: Path) -> None:
    code, said = finish(rgpt_batch("retry-failed", tmp_path))
    assert code == 2
    assert "no job was planned here" in said


def test_the_limit_on_rejections_can_be_given_on_the_command_line(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    code, said = finish(job.score(tmp_path / "scored", "--max-rejected-fraction", "0.01"))
    assert code == 3
    assert "3 of 96 rows are rejected, more than output.max_rejected_fraction=0.01" in said
    code, _ = finish(job.score(tmp_path / "scored", "--max-rejected-fraction", "0.04"))
    assert code == 0
