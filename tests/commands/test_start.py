"""A command that was forked does what one in an interpreter of its own does."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.commands.start import WITHOUT_TORCH, rgpt_batch, run, start

LIGHT = {"PYTHONPATH": WITHOUT_TORCH}


@pytest.mark.parametrize("command", [("status", "empty"), ("nonsense",), ("--version",)])
def test_it_ends_and_says_the_same(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    forked, fresh = (
        run(rgpt_batch(*command), folder=tmp_path, environment=LIGHT, fresh=fresh)
        for fresh in (False, True)
    )
    assert forked.returncode == (0 if command == ("--version",) else 2)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        (fresh.returncode, fresh.stdout, fresh.stderr)
    )


def test_what_its_path_runs_at_a_start_is_run(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; print('at a start', os.getcwd())")
    for fresh in (False, True):
        done = run(
            rgpt_batch("--version"),
            folder=tmp_path,
            environment={"PYTHONPATH": str(tmp_path)},
            fresh=fresh,
        )
        assert done.stdout.startswith(f"at a start {tmp_path}\n"), done.stdout
        assert done.returncode == 0


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_signals_reach_it_alone(signum: signal.Signals, fresh: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("queries", "corpus"):
        (tmp_path / f"{name}.tsv").write_text("q1\ttext\n")
    files = {"run": "pipe", "queries": "queries.tsv", "corpus": "corpus.tsv", "output": "out"}
    options = [part for name, file in files.items() for part in (f"--{name}", tmp_path / file)]
    command = rgpt_batch("import", "trec", *options)
    with (tmp_path / "log").open("wb") as log:
        process = start(command, (log, log, log), environment=LIGHT, session=True, fresh=fresh)
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
        assert os.getpgid(process.pid) == process.pid
        # Opened when the command opens it too.
        with (tmp_path / "pipe").open("wb"):
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.send_signal(signum)
            expected = -signum if signum == signal.SIGKILL else 128 + signum
            assert process.wait(60) == process.poll() == expected
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
