"""The command line as a process of its own: started, watched, killed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.commands.hold import HELD
from tests.commands.start import WITHOUT_TORCH, rgpt_batch, start

__all__ = ["Process", "has_parts", "held_after", "parts", "rgpt_batch", "started"]

DEADLINE_SECONDS = 300.0
# They hold neither an engine nor a GPU. Where a raylet had no time to end them, they give up after
# a minute.
_RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


class Process:
    """A running command in a session of its own, by which its children, and theirs, can be found.

    Args:
        command: What to run.
        log: Where its standard output and error go.
        environment: Added to this process's; RAY_ADDRESS is "local" unless given here.
        terminal: Run it in the foreground of a pseudo-terminal of 100 columns.
        without_torch: Hide torch from it, which saves five seconds.
        fresh: In an interpreter of its own; see tests/commands.
        held_at: Where it waits until let_go(): held_after(), or see tests/commands/hold.py.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        terminal: bool = False,
        without_torch: bool = True,
        fresh: bool = False,
        held_at: str = "",
    ) -> None:
        self._log = log
        self._hold = log.with_name(f"held-{log.name}")
        self._terminal: int | None = None
        settings = {"RAY_ADDRESS": "local", **(environment or {})}
        if without_torch:
            settings["PYTHONPATH"] = WITHOUT_TORCH
        if held_at:
            self._hold.touch()
            hold = {"HOLD_AT": held_at, "HOLD_FILE": str(self._hold)}
            settings |= hold
            if settings["RAY_ADDRESS"] != "local":
                # Workers of a cluster that is there already get its environment, and this.
                workers = {**hold, "PYTHONPATH": os.pathsep.join((HELD, WITHOUT_TORCH))}
                job = {"runtime_env": {"env_vars": workers}}
                settings["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps(job)
        options: dict[str, Any] = {"environment": settings, "session": True, "fresh": fresh}
        with log.open("wb") as stream, open(os.devnull, "rb") as nothing:
            if not terminal:
                self._popen = start(command, (nothing, stream, stream), **options)
                return
        self._terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (40, 100))
        settings["TERM"] = "xterm-256color"
        self._popen = start(command, (inner, inner, inner), terminal=True, **options)
        os.close(inner)
        self._reader = threading.Thread(target=self._copy_terminal, daemon=True)
        self._reader.start()

    def _copy_terminal(self) -> None:
        assert self._terminal is not None
        # Reading fails with EIO when the last process has closed the other side.
        with self._log.open("ab", buffering=0) as stream, contextlib.suppress(OSError):
            while chunk := os.read(self._terminal, 4096):
                stream.write(chunk)

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self._popen.pid

    @property
    def output(self) -> str:
        """What the command has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
        """Wait for something to happen while the command runs, or as the last thing it does."""
        deadline = time.monotonic() + seconds
        while not holds(condition):
            if self._popen.poll() is not None:
                assert holds(condition), f"ended too early:\n{self.output}"
                return
            assert time.monotonic() < deadline, f"waited {seconds} s in vain:\n{self.output}"
            time.sleep(0.01)

    def wait_until_held(self) -> None:
        """Wait until it is where it was to wait."""
        self.wait_until(self._hold.with_name(f"{self._hold.name}.there").exists)

    def let_go(self) -> None:
        """Let it go on where it was held."""
        self._hold.unlink()

    def wait(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Wait for the end; returns the exit code."""
        try:
            code = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.output}") from None
        if self._terminal is not None:
            self._reader.join(DEADLINE_SECONDS)
        return code

    def is_running(self) -> bool:
        return self._popen.poll() is None

    def send(self, signum: int) -> None:
        """Signal the command alone."""
        self._popen.send_signal(signum)

    def press_ctrl_c(self) -> None:
        """Have the terminal signal the whole foreground process group."""
        assert self._terminal is not None
        os.write(self._terminal, b"\x03")

    def kill_group(self) -> None:
        """SIGKILL the command and all of its process group, where it has not ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def relatives(self, parents: Collection[int] = ()) -> dict[int, str]:
        """Find the processes that the command has started, directly or not, and itself.

        Args:
            parents: Only children of these.
        """
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # After the name in brackets: state, parent, process group, session.
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                if parents and int(status[1]) not in parents:
                    continue
                if status[0] != "Z" and int(status[3]) == self.pid:
                    name = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(folder.name)] = name.decode(errors="replace").strip()
        return found

    def wait_until_all_gone(self, seconds: float = DEADLINE_SECONDS) -> None:
        """Fail if a process that the command has started stays behind."""
        deadline = time.monotonic() + seconds
        while left := [name for name in self.relatives().values() if name not in _RAY_AGENTS]:
            assert time.monotonic() < deadline, f"stayed behind: {left}"
            time.sleep(0.05)

    def clean_up(self) -> None:
        """End everything that is left, whatever happened."""
        self._hold.unlink(missing_ok=True)
        for pid in self.relatives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._popen.wait()
        if self._terminal is not None:
            os.close(self._terminal)


@contextlib.contextmanager
def started(command: Sequence[str | Path], log: Path, **options: object) -> Iterator[Process]:
    """Start a command; at the end nothing of it is left."""
    process = Process(command, log, **options)  # type: ignore[arg-type]
    try:
        yield process
    finally:
        process.clean_up()


def holds(condition: Callable[[], bool]) -> bool:
    """Look whether something is so; where a folder was deleted during the look, it is not yet."""
    try:
        return condition()
    except FileNotFoundError:
        return False


def has_parts(output: Path, number: int) -> bool:
    """Tell whether so many files are committed."""
    return len(parts(output)) >= number


def held_after(num_units: int) -> str:
    """Where a command waits when it has committed so many units on disk."""
    return f"os.link part- {num_units}"


def parts(output: Path) -> list[Path]:
    """The committed files of an output folder."""
    return sorted(output.glob("part-*.parquet"))
