"""The same command on several machines at once: `score --join`. Processes play the machines.

Each is held at its first commit until all are there, so that none is done before. Four commands,
then twice three, some 20 s in which the engines sleep and cores are free.
"""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.output import Store, open_store
from rgpt_batch.storage.files import open_source
from tests.commands.start import WITHOUT_TORCH, run
from tests.e2e.jobs import Finish, Job, Start
from tests.e2e.outputs import row_differences
from tests.e2e.processes import held_after, rgpt_batch
from tests.servers.faulty_proxy import Hold

LIGHT = {"PYTHONPATH": WITHOUT_TORCH}
# Alone, a process would need 15 s, or 5 s.
SLOW = ("-o", "engine.fake_seconds_per_pair=0.15")
FASTER = ("-o", "engine.fake_seconds_per_pair=0.05")


def rows_of(store: Store) -> pa.Table:
    files = store.committed().values()
    return pa.concat_tables([pq.read_table(open_source(file.path)) for file in files])


def read_status(output: str | Path) -> dict[str, object]:
    done = run(rgpt_batch("status", str(output), "--json"), environment=LIGHT)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_four_processes_share_a_job_and_score_no_unit_twice(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    store = open_store(str(output))
    command = job.score(output, "--join", *SLOW)
    processes = [start(command, held_at=held_after(0)) for _ in range(4)]
    processes[0].wait_until(lambda: len(store.processes()) == 4)
    for process in processes:
        process.wait_until_held()
    status = read_status(output)
    assert isinstance(status["processes"], list) and len(status["processes"]) == 4
    for process in processes:
        process.let_go()
    said = [process.output for process in processes if process.wait() == 0]
    assert len(said) == 4, [process.output for process in processes]

    assert row_differences(clean_rows, rows_of(store)) == []
    assert store.listing().success is not None
    units = [[unit["unit_id"] for unit in run["units"]] for run in store.read_runs()]
    # Each counts its own. Three of a hundred units may be scored twice; here it would be one.
    assert sorted(itertools.chain(*units)) == [f"{i:06d}" for i in range(job.num_units)]
    assert all(len(mine) < job.num_units / 2 for mine in units), units
    in_this_run = [int(text.split("of which ")[1].split(" in this run")[0]) for text in said]
    assert sorted(in_this_run) == sorted(len(mine) * 4 for mine in units)
    assert all("in others at the same time and 0 before" in text for text in said)
    # Nothing of their agreement is left.
    assert store.claims() == set() and store.processes() == {}
    assert "processes" not in read_status(output)


@pytest.mark.parametrize("place", ["local", "s3"])
def test_whichever_process_is_killed_or_stopped_the_others_finish(
    place: str,
    request: pytest.FixtureRequest,
    job: Job,
    start: Start,
    clean_rows: pa.Table,
    tmp_path: Path,
) -> None:
    bucket = "" if place == "local" else request.getfixturevalue("bucket")
    output = f"s3://{bucket}/scored" if bucket else str(tmp_path / "scored")
    store = open_store(output)
    options = ("--join", "-o", "executor.join_timeout_seconds=3", *FASTER)
    command = [
        *rgpt_batch("score", "-c", job.config, "-i", job.pairs, "--output", output),
        *options,
    ]
    # In a bucket, what was held is dropped in the end: a killed process commits nothing then.
    hold = Hold("PUT", "/part-", 0)
    if bucket:
        request.getfixturevalue("proxy").choose = hold
    held_at = "" if bucket else held_after(0)
    killed, stopped, last = processes = [start(command, held_at=held_at) for _ in range(3)]
    last.wait_until(lambda: len(_owners(store)) == 3)
    if not bucket:
        for process in processes:
            process.wait_until_held()
    killed.kill_group()
    # It may not take over what the killed one had before the other one has ended.
    last.send(signal.SIGSTOP)
    hold.end.set()
    if not bucket:
        stopped.let_go()
        last.let_go()
    stopped.send(signal.SIGTERM)
    assert stopped.wait() == 143, stopped.output
    assert last.is_running()
    # What the stopped one had in hand is free at once, what the killed one had is not.
    assert len(_owners(store)) == 2
    last.send(signal.SIGCONT)
    assert last.wait() == 0, last.output
    assert all("Traceback" not in process.output for process in processes)
    assert row_differences(clean_rows, rows_of(store)) == []
    assert store.listing().success is not None
    assert store.claims() == set() and store.processes() == {}


def _owners(store: Store) -> set[str]:
    """The processes that have units in hand."""
    done = store.committed()
    names = [name for name in store.claims() if name.partition("-")[0] not in done]
    owners: Callable[[str], str | None] = store.claim_owner
    return {owner for name in names if (owner := owners(name))}


def test_a_folder_is_not_cleared_for_processes_that_join(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    command = job.score(tmp_path / "scored", "--join", "--on-change", "overwrite")
    code, said = finish(command)
    assert code == 2
    assert "--join does not go with --on-change overwrite" in said
    assert not (tmp_path / "scored").exists()
