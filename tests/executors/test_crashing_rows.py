"""A row that kills whatever scores it costs a few workers and its own score, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rgpt_batch import run_job
from rgpt_batch.job.plan import plan_job
from rgpt_batch.output import open_store
from tests.executors.mortal import MortalWorker
from tests.executors.workers import Journal, MakeExecutor, run
from tests.jobs import fake_config, read_output, score

PlanJob = Callable[..., Any]


pytestmark = pytest.mark.ray

NUM_ROWS = 120


@pytest.fixture
def mortal_job(tiny_tokenizer: Path, write_pairs: Callable[..., Path], tmp_path: Path) -> PlanJob:
    """Plan a job of three units of 40 rows; returns its parts, given what the rows hold."""

    def plan(poison: dict[int, str]) -> Any:
        pairs = [(f"query {i % 5}", f"{poison.get(i, 'plain')} document {i}") for i in range(120)]
        path = write_pairs(pairs, row_group_size=40)
        config = fake_config(tiny_tokenizer, "units.max_rows=40", "output.source=true")
        output = str(tmp_path / "scored")
        config, manifest = plan_job(config, [str(path)], output)
        open_store(output).save_manifest(manifest)
        make_worker = partial(
            MortalWorker, tmp_path, config, manifest.columns, manifest.fingerprint, output
        )
        # The fake engine itself minds no document.
        clean = score(config, [path], tmp_path / "clean").rows
        return manifest.units, make_worker, partial(run_job, config, [str(path)], output), clean

    return plan


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
