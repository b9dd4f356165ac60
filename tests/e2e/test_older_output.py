"""Output folders of an earlier release are resumed, verified and reported; see tests/older.

Each test copies them beside their input and works there, which is where the plan says they are.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import start as commands
from tests.conftest import ROOT
from tests.e2e.outputs import identities, read_output, row_differences

Run = Callable[..., tuple[int, str]]

HERE = "/proc/self/cwd"
# What the plans say of the input; a checkout gives files times of its own.
INPUT_TIME = 1_750_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of everything."""
    copy = shutil.copytree(ROOT / "tests" / "older", tmp_path / "older")
    for shard in (copy / "in").iterdir():
        os.utime(shard, (INPUT_TIME, INPUT_TIME))
    return copy


@pytest.fixture
def run(folder: Path) -> Run:
    """Run the command line in that folder; returns its exit code and all that it said."""

    def run_one(*arguments: str) -> tuple[int, str]:
        done = commands.run(
            commands.rgpt_batch(*arguments),
            folder=folder,
            environment={"PYTHONPATH": commands.WITHOUT_TORCH},
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        return done.returncode, said

    return run_one


def score(output: str) -> tuple[str, ...]:
    return (
        *("score", "-i", f"{HERE}/in", "--output", f"{HERE}/{output}"),
        *("-o", f"model.name={HERE}/tokenizer", "-o", "engine.method=fake"),
        *("-o", "executor.kind=local", "-o", "units.max_rows=3"),
    )


def run_states(output: Path) -> list[str]:
    paths = sorted((output / "_rgpt" / "runs").iterdir())
    return [json.loads(path.read_text())["state"] for path in paths]


def test_a_complete_output_is_verified_reported_ranked_and_found_complete(
    run: Run, folder: Path
) -> None:
    output = folder / "complete"
    before = identities(output)
    code, said = run("verify", f"{HERE}/complete")
    assert code == 0, said
    code, said = run("status", "complete")
    assert said.splitlines()[:2] == ["state        complete", "units        4 of 4 committed"]
    code, said = run("report", "complete")
    assert code == 0, said
    assert "another version" not in said and "No run record" not in said, said
    code, said = run("rank", "complete", "--output", "run.parquet")
    assert code == 0, said
    code, said = run(*score("complete"))
    assert code == 0, said
    assert "12, of which 0 in this run and 12 before" in said
    assert identities(output) == before
    assert run_states(output) == ["complete", "complete"]


@pytest.mark.parametrize("command", ["score", "retry-failed"])
def test_an_incomplete_output_is_continued(run: Run, folder: Path, command: str) -> None:
    output = folder / "incomplete"
    before = identities(output)
    code, said = run("status", "incomplete")
    assert "state        incomplete" in said
    assert "failed       unit 000002: ShardError: /proc/self/cwd/in/pairs-1.parquet" in said
    arguments = (
        score("incomplete") if command == "score" else ("retry-failed", f"{HERE}/incomplete")
    )
    code, said = run(*arguments)
    assert code == 0, said
    assert "12, of which 3 in this run and 9 before" in said
    assert before.items() <= identities(output).items()
    assert row_differences(read_output(folder / "complete"), read_output(output)) == []
    assert list((output / "_rgpt" / "failed").iterdir()) == []
    assert run_states(output) == ["incomplete", "complete"]
    code, said = run("verify", "incomplete")
    assert code == 0, said
    code, said = run("report", "incomplete")
    assert code == 0, said


def test_an_option_that_is_refused_today_keeps_no_older_output_from_being_read(
    run: Run, folder: Path
) -> None:
    for path in (folder / "incomplete" / "_rgpt" / "runs").iterdir():
        record = json.loads(path.read_text())
        record["config"]["engine"]["vllm_args"] = {"pipeline_parallel_size": 2}
        path.write_text(json.dumps(record))
    code, said = run("status", f"{HERE}/incomplete")
    assert code == 0, said
    code, said = run("report", f"{HERE}/incomplete")
    assert code == 0, said
    code, said = run("retry-failed", f"{HERE}/incomplete")
    assert code == 2, said
    assert "the last run's configuration is of another version of rgpt-batch" in said
    assert "must not hold pipeline_parallel_size" in said
