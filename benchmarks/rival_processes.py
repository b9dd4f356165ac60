"""The processes of `rivals.py`: a Ray that stays, commands that are watched and killed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos import kill, session_of
from benchmarks.rival_jobs import NUM_CPUS
from tests.servers.ports import free_port

ROOT = Path(__file__).parent.parent
# Counted from the start, or from the last kill.
DEADLINE_SECONDS = 240.0
_MAX_STARTS = 4


def environment_of(journal: Path, bad_row: str, address: str) -> dict[str, str]:
    """Give what a system's processes find in their environment."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks" / "journal"), str(ROOT)]),
        "RIVALS_JOURNAL": str(journal),
        "RIVALS_BAD_ROW": bad_row,
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }


class Cluster:
    """A Ray of one machine, which outlives the commands that use it, as clusters do.

    Args:
        folder: For its log, and the journal of what is scored.
        bad_row: What a bad row does to whatever scores it, if there is one.
        is_needed: False for systems without Ray.
    """

    def __init__(self, folder: Path, bad_row: str, *, is_needed: bool) -> None:
        folder.mkdir()
        self.journal = folder / "journal"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        port = free_port()
        self.environment = environment_of(self.journal, bad_row, f"127.0.0.1:{port}")
        for _ in range(_MAX_STARTS if is_needed else 0):
            if self._starts(port):
                return
            # On a busy machine one of Ray's processes may not wait for the others.
            self.stop()
        if is_needed:
            raise SystemExit(f"Ray does not start:\n{self._log.read_text(errors='replace')}")

    def _starts(self, port: int) -> bool:
        ray = Path(sys.executable).parent / "ray"
        line: list[str | Path] = [ray, "start", "--head", "--block", f"--port={port}"]
        line += [f"--num-cpus={NUM_CPUS}", "--include-dashboard=false"]
        line += ["--node-ip-address=127.0.0.1"]
        self._log.unlink(missing_ok=True)
        self._process = start(line, self._log, self.environment | {"RAY_ADDRESS": ""})
        while self._process.poll() is None:
            if "Ray runtime started" in self._log.read_text(errors="replace"):
                return True
            time.sleep(0.1)
        return False

    def stop(self) -> None:
        """End all of its processes."""
        if self._process is not None:
            end_session(self._process)


def start(
    line: Sequence[str | Path], log: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, by which its children are found."""
    with log.open("ab") as stream:
        return subprocess.Popen(
            line,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def end_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process and all that it has started."""
    while left := session_of(process.pid):
        for pid in left:
            kill(pid)
        process.poll()


class Attempt:
    """One start of a job's command."""

    def __init__(self, line: Sequence[str | Path], job: Path, cluster: Cluster) -> None:
        self._journal = cluster.journal
        self._scored_before = _size(self._journal)
        self.deadline = time.monotonic() + DEADLINE_SECONDS
        self._process = start(line, job / "log", cluster.environment)
        self.pid = self._process.pid

    def wait(self, seconds: float = math.inf, *, until_it_scores: bool = False) -> int | None:
        """Wait for the end: the exit code, or None if it still runs.

        Raises:
            TimeoutError: The deadline is over.
        """
        until = time.monotonic() + seconds
        while (code := self._process.poll()) is None:
            now = time.monotonic()
            if now > self.deadline:
                raise TimeoutError
            if now > until or (until_it_scores and _size(self._journal) > self._scored_before):
                return None
            time.sleep(0.01)
        return code

    def kill_all(self) -> None:
        """SIGKILL the command, and all that scores for it."""
        workers = self.workers()
        end_session(self._process)
        for pid in workers:
            kill(pid)

    def kill_command(self) -> None:
        """SIGKILL the command alone: what it has started may end by itself, or go on."""
        self._process.kill()
        self._process.wait()

    def workers(self) -> list[int]:
        """Find the processes that score for it; the command itself may be one."""
        found = rows_scored(self._journal, self._scored_before)
        return sorted(pid for pid in found if pid == self.pid or _is_rays(pid))


def _is_rays(pid: int) -> bool:
    """Whether a process belongs to a job on Ray, or is one that Daft starts for a UDF."""
    name = session_of(pid).get(pid, "")
    return bool(name) and "ray::IDLE" not in name


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def rows_scored(journal: Path, begin: int = 0) -> Counter[int]:
    """Count the rows that each process has begun to score, from a byte of the journal on."""
    found: Counter[int] = Counter()
    for line in journal.read_text()[begin:].splitlines() if journal.exists() else []:
        pid, rows = line.split()
        found[int(pid)] += int(rows)
    return found
