"""SIGKILL in the middle, then the same command again."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.e2e.jobs import Command, Job, Start
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import has_parts, held_after, parts


def kill_and_resume(
    job: Job,
    start: Start,
    clean_rows: pa.Table,
    command: Command,
    moments: tuple[int, ...],
    **options: Any,
) -> str:
    """Kill the command at every moment, then let it finish; returns what it said at the end.

    Args:
        moments: Numbers of committed units to wait for; 0 waits for the plan.
    """
    output = Path(command[command.index("--output") + 1])
    settled: dict[str, tuple[int, int, int]] = {}
    for num_parts in moments:
        more = max(0, num_parts - len(settled))
        process = start(command, held_at=held_after(more), **options)
        if num_parts:
            process.wait_until(partial(has_parts, output, num_parts))
        else:
            process.wait_until(lambda: any((output / "_rgpt").glob("plan-*.json")))
        process.kill_group()
        found = identities(output)
        assert num_parts <= len(found) < job.num_units, "not killed in the middle"
        assert not (output / "_SUCCESS").exists()
        # What was committed before is still the same file, and every file is whole.
        assert settled.items() <= found.items()
        settled = found
        # Workers of a cluster that goes on may commit what they have in hand.
        process.let_go()
        if found:
            assert row_differences(clean_rows, read_output(output)) != []
    process = start(command, **options)
    assert process.wait() == 0, process.output
    assert settled.items() <= identities(output).items()
    assert (output / "_SUCCESS").exists()
    assert row_differences(clean_rows, read_output(output)) == []
    return process.output


def test_a_killed_local_job_resumes_without_losing_or_doubling_a_row(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    command = job.score(tmp_path / "scored")
    said = kill_and_resume(job, start, clean_rows, command, moments=(0, 1, 7, 15))
    before = int(said.split("in this run and ")[1].split(" before")[0])
    assert before >= 15 * 4


@pytest.mark.ray
def test_a_killed_ray_job_resumes_while_its_old_workers_may_still_commit(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path, ray_address: str
) -> None:
    # The workers belong to a cluster that goes on: they end when it sees that the driver is gone.
    command = job.score(tmp_path / "scored", "--executor", "ray", "-o", "executor.num_workers=2")
    kill_and_resume(
        job,
        start,
        clean_rows,
        command,
        moments=(1, 12),
        environment={"RAY_ADDRESS": ray_address},
    )


@pytest.mark.ray
def test_a_killed_ray_driver_leaves_no_worker_behind(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    process = start(job.score(output, "--executor", "ray"), held_at=held_after(1))
    process.wait_until(lambda: len(parts(output)) >= 1)
    assert any("raylet" in name for name in process.relatives().values())
    process.send(signal.SIGKILL)
    process.wait_until_all_gone()
    assert 1 <= len(parts(output)) < job.num_units
    process = start(job.score(output))
    assert process.wait() == 0, process.output
    assert row_differences(clean_rows, read_output(output)) == []


def test_two_runs_of_the_same_command_at_once_give_each_row_once(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    first, second = (start(job.score(output), held_at=held_after(0)) for _ in range(2))
    # Neither may be done before the other has begun.
    first.wait_until_held()
    second.wait_until_held()
    first.let_go()
    second.let_go()
    assert (first.wait(), second.wait()) == (0, 0), first.output + second.output
    # Each counts what it has committed itself.
    said = (first.output, second.output)
    assert sum(int(text.split("of which ")[1].split(" in this")[0]) for text in said) == 96
    assert row_differences(clean_rows, read_output(output)) == []
    assert (output / "_SUCCESS").exists()
