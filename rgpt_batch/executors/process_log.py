"""Logs of what engines print, and the libraries around them: on no terminal, but in a file.

They print in many ways: warnings, loggers, C++ code, processes that they start. So standard output
and error lead to the file as file descriptors. What is printed is not changed: a pipe that masks
credentials would lose the last lines of a process that is killed. They are masked when shown.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rgpt_batch.output import open_store
from rgpt_batch.storage.uris import redacted

_STANDARD = (1, 2)
_TAIL_BYTES = 8192
_TAIL_LINES = 15

_ErrorT = TypeVar("_ErrorT", bound=Exception)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLog:
    """Where the log of a process lies; other hosts may not see the path."""

    host: str
    pid: int
    path: str

    def __str__(self) -> str:
        return f"{self.path} (host {self.host}, process {self.pid})"

    def tail(self) -> list[str]:
        """Return the last lines, without what progress bars have overwritten; [] if unreadable."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                text = stream.read().decode(errors="replace")
        except OSError:
            return []
        lines = (line.rstrip().rpartition("\r")[2] for line in text.split("\n"))
        return [redacted(line) for line in lines if line.strip()][-_TAIL_LINES:]

    def note(self) -> str:
        """Say where the log is, and what it ends with."""
        lines = self.tail()
        ending = ", which ends with:" if lines else ""
        return "\n".join([f"see the log {self}{ending}", *(f"  | {line}" for line in lines)])

    def noted(self, error: _ErrorT) -> _ErrorT:
        """Add the note to an error, unless a process that is nearer to the cause has added one."""
        if not getattr(error, "__notes__", ()):
            error.add_note(self.note())
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLogs:
    """The logs of all processes of one run. Each opens its own."""

    output: str
    run_id: str

    def open_log(self, name: str) -> tuple[ProcessLog, int]:
        """Make the log of this process; returns it and a file descriptor.

        Raises:
            OSError: It cannot be written.
        """
        folder = open_store(self.output).log_folder or tempfile.mkdtemp(prefix="rgpt-batch-logs-")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{self.run_id}-{name}.log")
        # The name is new. In a folder that others may write to, it must not be a link of theirs.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        log = os.open(path, flags, 0o644)
        return ProcessLog(host=socket.gethostname(), pid=os.getpid(), path=path), log

    def redirect(self, name: str) -> ProcessLog | None:
        """Let all that this process prints from now on go to its log; None if there can be none."""
        try:
            log, stream = self.open_log(name)
        except OSError:
            return None
        _flush()
        _lead_to(stream)
        os.close(stream)
        return log

    @contextmanager
    def captured(self, name: str) -> Iterator[tuple[ProcessLog, int] | None]:
        """Let what this process prints meanwhile go to its log, which is deleted if it stays empty.

        Yields:
            The log, and a file descriptor of standard error as it was; None where there can be no
            log, and nothing is captured.
        """
        if not all(map(_is_open, _STANDARD)):
            yield None
            return
        try:
            log, stream = self.open_log(name)
        except OSError:
            yield None
            return
        _flush()
        saved = [os.dup(number) for number in _STANDARD]
        _lead_to(stream)
        os.close(stream)
        try:
            yield log, saved[1]
        finally:
            _flush()
            for number, before in zip(_STANDARD, saved, strict=True):
                os.dup2(before, number)
                os.close(before)
            with suppress(OSError):
                if not os.path.getsize(log.path):
                    os.unlink(log.path)

    def drop_empty(self) -> None:
        """Delete the logs of this run's workers that have printed nothing, where they are seen."""
        if folder := open_store(self.output).log_folder:
            for path in Path(folder).glob(f"{self.run_id}-*.log"):
                with suppress(OSError):
                    if not path.stat().st_size:
                        path.unlink()
            with suppress(OSError):
                os.rmdir(folder)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _lead_to(stream: int) -> None:
    for number in _STANDARD:
        os.dup2(stream, number)


def _flush() -> None:
    """Empty the buffers of Python and of C, so that each line goes where it was printed to."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)
