"""What workers print is in their logs, and errors say where these are."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from rgpt_batch.errors import EngineStartError
from rgpt_batch.executors.process_log import RunLogs
from tests.conftest import ROOT
from tests.executors.workers import Fault, MakeExecutor, Script, TalkativeWorker, make_units, run

RUN = "run-000001-abcd"


@pytest.fixture
def logs(tmp_path: Path) -> RunLogs:
    return RunLogs(output=str(tmp_path / "scored"), run_id=RUN)


def check_note(note: str, log: Path) -> None:
    assert str(log) in note
    assert f"process {log.stem.rpartition('-')[2]}" in note
    assert "  | loading shards: 100 %" in note
    assert "50 %" not in note
    assert "[W] no NUMA node" in note
    assert "canary-7f3a" not in note


@pytest.mark.ray
@pytest.mark.parametrize("fault", ["start-error", "kill"])
def test_a_failed_start_on_ray_says_where_the_workers_log_is_and_how_it_ends(
    ray_executor: MakeExecutor, fault: Fault, logs: RunLogs, tmp_path: Path
) -> None:
    # Each of these starts three actors, a second or two each.
    script = Script(every_start=fault)
    with pytest.raises(EngineStartError) as caught, ray_executor(logs=logs) as executor:
        list(executor.run(make_units(1), partial(TalkativeWorker, tmp_path, script)))
    found = sorted((tmp_path / "scored" / "_rgpt" / "logs").iterdir())
    assert len(found) == 3
    (note,) = caught.value.__notes__
    (log,) = (log for log in found if str(log) in note)
    assert log.name.startswith(f"{RUN}-")
    check_note(note, log)


@pytest.mark.ray
def test_a_dead_worker_on_ray_leaves_its_last_lines_and_its_unit_says_where_the_log_is(
    ray_executor: MakeExecutor,
    logs: RunLogs,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(faults={"000000": "kill"})
    done, failures = run(
        ray_executor(logs=logs, max_attempts=1),
        make_units(1, num_rows=1),
        partial(TalkativeWorker, tmp_path, script),
    )
    assert done == []
    found = list((tmp_path / "scored" / "_rgpt" / "logs").iterdir())
    (log,) = (log for log in found if str(log) in failures["000000"].cause)
    (said, *_) = [r.getMessage() for r in caplog.records if str(log) in r.getMessage()]
    assert "the worker's process died" in said
    check_note(said, log)
    assert all(record.levelno == logging.WARNING for record in caplog.records)


_REDIRECTED = """
import os, sys, warnings
from rgpt_batch.executors.process_log import RunLogs
print("before")
log = RunLogs(output=sys.argv[1], run_id="run-1").redirect("worker")
os.write(1, b"from one\\n")
os.write(2, b"from two\\n")
print("from print")
warnings.warn("from warn")
os.system("echo from a child")
with open(sys.argv[2], "w") as stream:
    stream.write(log.path)
"""


@pytest.mark.parametrize("output", ["scored", "s3://no-such-bucket/scored"])
def test_a_process_that_is_redirected_prints_to_its_log_alone(output: str, tmp_path: Path) -> None:
    # For an object store the log is a file of this machine; nothing is asked of the store.
    where = tmp_path / "where"
    done = subprocess.run(
        [sys.executable, "-c", _REDIRECTED.replace("\\\\", "\\"), output, where],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )
    assert (done.stdout, done.stderr) == ("before\n", "")
    log = Path(where.read_text())
    assert tmp_path in log.parents
    assert log.name == "run-1-worker.log"
    text = log.read_text()
    for line in ("from one", "from two", "from print", "UserWarning: from warn", "from a child"):
        assert line in text
    assert "before" not in text


def test_a_log_whose_folder_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "scored").write_text("a file")
    logs = RunLogs(output=str(tmp_path / "scored"), run_id=RUN)
    assert logs.redirect("worker") is None
    with logs.captured("driver") as captured:
        assert captured is None


def test_the_log_of_a_process_that_is_gone_is_named_though_it_cannot_be_read(
    logs: RunLogs,
) -> None:
    with logs.captured("driver") as captured:
        assert captured is not None
        log, _ = captured
        os.write(1, b"a line\n")
    assert log.tail() == ["a line"]
    os.unlink(log.path)
    assert log.tail() == []
    assert log.note() == f"see the log {log}"


def test_logs_in_which_nothing_was_printed_are_dropped(logs: RunLogs, tmp_path: Path) -> None:
    folder = tmp_path / "scored" / "_rgpt" / "logs"
    folder.mkdir(parents=True)
    (folder / f"{RUN}-worker-1.log").touch()
    (folder / f"{RUN}-worker-2.log").write_text("a line")
    (folder / "run-000002-another-worker.log").touch()
    logs.drop_empty()
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{RUN}-worker-2.log",
        "run-000002-another-worker.log",
    ]
