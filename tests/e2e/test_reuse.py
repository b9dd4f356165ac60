"""`score --reuse` as a process: what it says, its exit codes, kills in the middle, Ray."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.e2e.jobs import Finish, Job, Start
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import has_parts, held_after, parts


@pytest.fixture
def old(clean_output: Path, tmp_path: Path) -> Path:
    """Two thirds of an earlier output of the job."""
    folder = shutil.copytree(clean_output, tmp_path / "old")
    for part in parts(folder)[16:]:
        part.unlink()
    (folder / "_SUCCESS").unlink()
    return folder


def test_progress_and_summary_tell_what_was_reused(
    job: Job, old: Path, finish: Finish, tmp_path: Path
) -> None:
    code, said = finish(job.score(tmp_path / "new", "--reuse", old))
    assert code == 0
    # 64 rows, of which two are rejected, so scored again.
    assert "reused       62 of 96 rows" in said
    assert "done: 96 of 96 pairs, reused 62 of 96, " in said


def test_wrong_use_exits_2_and_leaves_the_output_folder_alone(
    job: Job,
    old: Path,
    finish: Finish,
    tmp_path: Path,
) -> None:
    new = tmp_path / "new"
    cases: tuple[tuple[list[str | Path], str], ...] = (
        (["--reuse", tmp_path / "missing"], "holds no job of rgpt-batch"),
        (["--reuse", job.pairs], "holds no job of rgpt-batch"),
        (["--reuse", old, "--max-length", "39"], "protocol.max_length: was 40, is 39"),
    )
    for options, message in cases:
        code, said = finish(job.score(new, *options))
        assert code == 2
        assert message in said
        assert not new.exists()
    code, said = finish(job.score(old, "--reuse", old))
    assert code == 2
    assert "Leave --reuse out to resume its job" in said


@pytest.mark.parametrize("goes_on_with", ["--reuse", "nothing"])
def test_a_killed_job_resumes_with_reuse_or_without(
    job: Job,
    old: Path,
    start: Start,
    clean_rows: pa.Table,
    tmp_path: Path,
    goes_on_with: str,
) -> None:
    new = tmp_path / "new"
    command = job.score(new, "--reuse", old)
    settled: dict[str, tuple[int, int, int]] = {}
    indexes = set()
    for num_parts in (1, 17):
        process = start(command, held_at=held_after(num_parts - len(settled)))
        process.wait_until(partial(has_parts, new, num_parts))
        process.kill_group()
        found = identities(new)
        assert num_parts <= len(found) < job.num_units, "not killed in the middle"
        assert settled.items() <= found.items()
        settled = found
        (index,) = (new / "_rgpt" / "reuse").glob("*.arrow")
        indexes.add(index.stat().st_ino)
    assert len(indexes) == 1, "the index was built again"
    if goes_on_with == "nothing":
        shutil.rmtree(old)
        command = job.score(new)
    process = start(command)
    assert process.wait() == 0, process.output
    assert settled.items() <= identities(new).items()
    assert row_differences(clean_rows, read_output(new)) == []
    if goes_on_with == "--reuse":
        assert list((new / "_rgpt").rglob("*.arrow")) == []


@pytest.mark.ray
def test_workers_of_ray_reuse_scores(
    job: Job, old: Path, finish: Finish, tmp_path: Path, ray_address: str
) -> None:
    for part in parts(old):
        table = pq.read_table(part)
        index = table.schema.get_field_index("score")
        lower = pc.subtract(table["score"], pa.scalar(100, pa.float32()))
        pq.write_table(table.set_column(index, table.schema.field(index), lower), part)
    new = tmp_path / "new"
    options = ("--executor", "ray", "-o", "executor.num_workers=2", "--reuse", old)
    code, said = finish(job.score(new, *options), environment={"RAY_ADDRESS": ray_address})
    assert code == 0, said
    scores = read_output(new)["score"]
    assert sum(score is not None and score < -100 for score in scores.to_pylist()) == 62
    assert scores.null_count == 3
