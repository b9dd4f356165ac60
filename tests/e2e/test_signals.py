"""Ctrl-C and SIGTERM: a prompt end, the right exit code, nothing left behind, and a resume."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.jobs import Finish, Job, ReadStatus, Start
from tests.e2e.outputs import read_output, row_differences
from tests.e2e.processes import Process, held_after, parts
from tests.executors.cluster import wait_until_idle

# A tenth of it on quiet cores; Ray's own shutdown takes the most. Other tests run beside these.
PROMPTLY = 120.0
LOCAL = ("--executor", "local")
RAY = ("--executor", "ray", "-o", "executor.num_workers=2")


def assert_stopped(
    process: Process, signum: signal.Signals, output: Path, read_status: ReadStatus
) -> None:
    assert process.wait(PROMPTLY) == 128 + signum, process.output
    assert "Traceback" not in process.output
    assert f"stopped by {signal.Signals(signum).name}" in process.output
    assert "run the same command again" in process.output
    status = read_status(output)
    assert status["state"] == "stopped"
    assert not (output / "_SUCCESS").exists()
    process.wait_until_all_gone()


@pytest.mark.parametrize(
    ("executor", "joins", "signum"),
    [
        pytest.param(LOCAL, False, signal.SIGINT, id="local-SIGINT"),
        pytest.param(LOCAL, False, signal.SIGTERM, id="local-SIGTERM"),
        pytest.param(RAY, False, signal.SIGTERM, marks=pytest.mark.ray, id="own-ray-SIGTERM"),
        pytest.param(RAY, True, signal.SIGINT, marks=pytest.mark.ray, id="joined-ray-SIGINT"),
    ],
)
def test_a_signal_stops_the_job_promptly_and_the_same_command_resumes(
    executor: tuple[str, ...],
    joins: bool,
    signum: signal.Signals,
    job: Job,
    start: Start,
    finish: Finish,
    clean_rows: pa.Table,
    tmp_path: Path,
    read_status: ReadStatus,
    request: pytest.FixtureRequest,
) -> None:
    output = tmp_path / "scored"
    address = request.getfixturevalue("ray_address") if joins else "local"
    process = start(
        job.score(output, *executor), environment={"RAY_ADDRESS": address}, held_at=held_after(3)
    )
    process.wait_until(lambda: len(parts(output)) >= 3)
    process.send(signum)
    process.let_go()
    assert_stopped(process, signum, output, read_status)
    if joins:
        wait_until_idle()
    num_committed = len(parts(output))
    assert 3 <= num_committed < job.num_units
    # What was being scored has stopped nothing, and need not come last.
    assert list(output.glob("_rgpt/begun/*")) == []
    # Where units run is no part of the job, so that the faster executor may go on.
    code, said = finish(job.score(output))
    assert code == 0
    assert f"{num_committed * 4} before" in said
    assert row_differences(clean_rows, read_output(output)) == []


@pytest.mark.parametrize(
    "executor",
    [
        pytest.param(LOCAL, id="local"),
        # Through Ray, signals are tried above; here is the bar beside what Ray prints.
        pytest.param(RAY, marks=[pytest.mark.ray, pytest.mark.long], id="ray"),
    ],
)
def test_ctrl_c_on_a_terminal_stops_the_bar_and_the_job(
    executor: tuple[str, ...], job: Job, start: Start, tmp_path: Path, read_status: ReadStatus
) -> None:
    output = tmp_path / "scored"
    process = start(job.score(output, *executor), terminal=True, held_at=held_after(3))
    # The terminal signals everything in the foreground: driver, Ray's own processes, workers.
    process.wait_until(lambda: len(parts(output)) >= 3 and "pairs/s" in process.output)
    process.press_ctrl_c()
    process.let_go()
    assert_stopped(process, signal.SIGINT, output, read_status)
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert hide in process.output, "there was no bar"
    assert process.output.rindex(show) > process.output.rindex(hide), "the cursor stays hidden"


@pytest.mark.parametrize(
    ("executor", "activity"),
    [
        pytest.param(LOCAL, "starting the engine", id="local"),
        pytest.param(RAY, "starting or joining Ray", marks=pytest.mark.ray, id="ray"),
    ],
)
def test_a_signal_during_the_start_is_not_lost(
    executor: tuple[str, ...],
    activity: str,
    job: Job,
    start: Start,
    tmp_path: Path,
    read_status: ReadStatus,
) -> None:
    output = tmp_path / "scored"
    # Where the start is over before the signal comes, there is still no unit done.
    command = [*job.score(output, *executor), "-o", "engine.fake_seconds_per_pair=3600"]
    process = start(command)
    process.wait_until(lambda: activity in process.output)
    process.send(signal.SIGTERM)
    assert_stopped(process, signal.SIGTERM, output, read_status)
    assert parts(output) == []


def test_a_second_signal_ends_even_a_job_that_hangs_in_its_clean_up(
    job: Job, start: Start, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    process = start(job.score(output), held_at=held_after(1))
    process.wait_until_held()
    deadline = time.monotonic() + PROMPTLY
    while process.is_running():
        assert time.monotonic() < deadline, process.output
        # Those that come before the first was noticed are one with it.
        with contextlib.suppress(ProcessLookupError):
            process.send(signal.SIGTERM)
        time.sleep(0.2)
    # Which of them comes through depends on how far the clean-up was.
    assert process.wait() in (128 + signal.SIGTERM, -signal.SIGTERM)
