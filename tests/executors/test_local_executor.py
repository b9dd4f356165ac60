from __future__ import annotations

import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.errors import ConfigError, EngineDead
from tests.commands import fork_server
from tests.executors.mortal import PlanJob, run_to_death
from tests.executors.workers import (
    DEADLINE_SECONDS,
    Fault,
    Journal,
    MakeExecutor,
    Script,
    ScriptedWorker,
    make_units,
    run,
)
from tests.jobs import read_output


def wait_for_threads_to_end(before: Any) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, "a thread stayed behind"
        time.sleep(0.01)


def test_several_workers_need_ray(local_executor: MakeExecutor) -> None:
    with pytest.raises(ConfigError, match=r"num_workers is 2.*executor.kind=ray"):
        local_executor(num_workers=2)


@pytest.mark.parametrize("fault", ["dead", "sysexit"])
def test_a_dead_engine_ends_the_job_and_names_the_unit(
    local_executor: MakeExecutor, fault: Fault, tmp_path: Path
) -> None:
    script = Script(faults={"000001": fault})
    with (
        pytest.raises(EngineDead, match=r"scripted with unit 000001.*--executor ray"),
        local_executor() as executor,
    ):
        list(executor.run(make_units(4), partial(ScriptedWorker, tmp_path, script)))


def test_the_engine_is_closed_at_the_end_and_no_thread_stays(
    local_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    before = set(threading.enumerate())
    with local_executor() as executor:
        list(executor.run(make_units(4), partial(ScriptedWorker, tmp_path, Script())))
    assert len(journal.events("close")) == 1
    wait_for_threads_to_end(before)


def test_no_thread_stays_when_the_caller_stops_in_the_middle(
    local_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt), local_executor() as executor:
        for _ in executor.run(make_units(50), partial(ScriptedWorker, tmp_path, Script())):
            raise KeyboardInterrupt
    wait_for_threads_to_end(before)
    assert len(journal.units("begin")) < 50


def test_a_row_with_which_the_engine_raises_is_rejected_and_all_others_are_scored(
    local_executor: MakeExecutor,
    mortal_job: PlanJob,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    units, make_worker, finish, clean = mortal_job({57: "RAISE"})
    done, failures = run(local_executor(), units, make_worker)
    assert (len(done), failures) == (3, {})
    rows = read_output(tmp_path / "scored").to_pylist()
    assert (rows[57]["rejection"], rows[57]["score"]) == ("ENGINE_CRASH", None)
    assert rows[:57] + rows[58:] == clean[:57] + clean[58:]
    assert "unit 000001: looking for the rows that the engine cannot score" in caplog.text
    assert "scripted: the row cannot be scored" in caplog.text

    summary = finish(quiet=True)
    assert summary.exit_code == 3
    assert summary.num_rejected == {"ENGINE_CRASH": 1}
    assert not (tmp_path / "scored" / "_SUCCESS").exists()


def test_a_row_that_kills_the_process_keeps_no_other_unit_from_being_scored(
    mortal_job: PlanJob, tmp_path: Path, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    units, make_worker, finish, clean = mortal_job({57: "SIGKILL"})
    output = tmp_path / "scored"
    for _ in range(3):
        process = fork_server.process(run_to_death, units, make_worker, str(output))
        process.join(DEADLINE_SECONDS)
        assert process.exitcode == -signal.SIGKILL
    # In the second run at the latest, the unit with that row comes last.
    assert {path.name for path in output.glob("part-*")} == {
        "part-000000.parquet",
        "part-000002.parquet",
    }
    assert journal.units("begin")[-1] == "000001"
    assert journal.units("begin").count("000001") == 3

    assert finish().exit_code == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "1 unit (000001) not finished by two runs" in said
    assert read_output(output).to_pylist() == clean
    assert list(output.glob("_rgpt/begun/*")) == []
