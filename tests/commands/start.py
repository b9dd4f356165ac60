"""Start the command line as a process: a fork of one that has imported what it needs (warm.py).

So can any module be run that `python -m` runs. A command gets an interpreter of its own where its
environment holds what is read on import, or where a test asks for it.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from tests.commands.hold import HELD

ROOT = Path(__file__).parent.parent.parent
# Hides torch from processes that have it on their PYTHONPATH: few need it, all would import it.
WITHOUT_TORCH = str(ROOT / "tests" / "e2e" / "without_torch")
# Read when they are needed, not on import.
_READ_LATE = (
    *("AWS_", "GOOGLE_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HOLD_", "TERM", "TMPDIR"),
    *("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_JOB_", "RAY_TMPDIR"),
    *("VLLM_CPU_", "VLLM_CACHE_ROOT", "JUMPING_CLOCK_"),
    # By the processes that a command starts.
    "OMP_NUM_THREADS",
)
# For all, and where torch is not hidden.
_LIGHT = (
    *("huggingface_hub.hf_api", "pandas", "pyarrow.dataset", "tokenizers", "yaml"),
    *("rgpt_batch.cli", "rgpt_batch.job.run_job", "rgpt_batch.job.preview", "rgpt_batch.report"),
    *("rgpt_batch.engines.fake", "rgpt_batch.executors.local", "rgpt_batch.checks.verify"),
)
_HEAVY = (
    *("rgpt_batch.engines.encoder_decoder", "rgpt_batch.engines.references"),
    *("transformers.models.bloom.modeling_bloom", "transformers.models.llama.modeling_llama"),
    *("vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "vllm.entrypoints.llm"),
    *("rgpt_batch.engines.vllm.query_rows.engine", "rgpt_batch.engines.vllm.pooling"),
)
# Before tests and engines in this process add to it.
_ENVIRONMENT = dict(os.environ)


class Running(Protocol):
    """What tests do with a process; a subprocess.Popen is one."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...


def rgpt_batch(*arguments: str | Path) -> list[str | Path]:
    """The command line of the command line."""
    return [sys.executable, "-m", "rgpt_batch", *arguments]


def start(
    command: Sequence[str | Path],
    streams: tuple[IO[bytes] | int, IO[bytes] | int, IO[bytes] | int],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    session: bool = False,
    terminal: bool = False,
    fresh: bool = False,
) -> Running:
    """Start a command.

    Args:
        command: Any; only modules that this Python is to run are forked.
        streams: Standard input, output and error: files or their numbers.
        environment: Added to this process's.
        folder: Where it works.
        session: In a session of its own.
        terminal: Standard input is the terminal that controls the session.
        fresh: In an interpreter of its own, as all that runs on Ray: it reads settings on import.
    """
    arguments, added = list(map(str, command)), dict(environment or {})
    path = added.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    late = all(name == "PYTHONPATH" or name.startswith(_READ_LATE) for name in added)
    hidden = path == WITHOUT_TORCH
    joins = path if path and not hidden else ""
    own = arguments[:2] == [sys.executable, "-m"] and not (joins and _holds_modules(joins))
    fresh = fresh or any(each == "ray" or each.endswith("=ray") for each in arguments)
    if own and late and not fresh:
        request = {
            "path": joins,
            "module": arguments[2],
            "arguments": arguments[3:],
            "environment": {**os.environ, **added},
            "folder": str(folder),
            "session": session,
            "terminal": terminal,
        }
        return Forked(_warm(WITHOUT_TORCH if hidden else ""), request, streams)
    if "HOLD_AT" in added:
        added["PYTHONPATH"] = os.pathsep.join(each for each in (HELD, path) if each)
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        arguments,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **added},
        cwd=folder,
        start_new_session=session,
        preexec_fn=_take_terminal if terminal else None,
    )


def run(
    command: Sequence[str | Path],
    *,
    text: str = "",
    timeout: float = 300,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with a text as its input; see start()."""
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        given.write(text.encode())
        given.seek(0)
        process = start(command, (given, output, errors), **options)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise
        return subprocess.CompletedProcess(command, code, _text(output), _text(errors))


def _holds_modules(path: str) -> bool:
    """Tell a path with modules from a folder that holds none but the one that is run at a start.

    A fork runs that one too. All else in such a folder only looks installed, and is read late.
    """
    modules = {file.relative_to(path) for file in Path(path).rglob("*.py")}
    return not os.path.isdir(path) or not modules <= {Path("sitecustomize.py")}


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode().replace("\r\n", "\n")


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@functools.cache
def _warm(path: str) -> Warm:
    return Warm(path)


class Warm:
    """A process to fork commands from. It ends with this one."""

    def __init__(self, path: str) -> None:
        self._lock = threading.Lock()
        self._connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A fork has no threads, and numpy's would be missed.
        settings = {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        modules = _LIGHT if path else (*_LIGHT, *_HEAVY)
        with other:
            number = other.fileno()
            subprocess.Popen(
                [sys.executable, "-m", "tests.commands.warm", str(number), *modules],
                stdin=subprocess.DEVNULL,
                env={**_ENVIRONMENT, **settings},
                cwd=ROOT,
                pass_fds=(number,),
                start_new_session=True,
            )

    def ask(self, request: Mapping[str, object], streams: Sequence[int] = ()) -> int:
        """Ask for a fork, which is answered by its process id, or for its exit code."""
        with self._lock:
            socket.send_fds(self._connection, [json.dumps(request).encode()], streams)
            answer = self._connection.recv(8)
        assert answer, "the process that commands are forked from has ended"
        return int.from_bytes(answer, "little", signed=True)


class Forked:
    """A command that was forked, with the ways of a subprocess.Popen."""

    def __init__(
        self, warm: Warm, request: Mapping[str, object], streams: Sequence[IO[bytes] | int]
    ) -> None:
        self._warm = warm
        self._code: int | None = None
        numbers = [each if isinstance(each, int) else each.fileno() for each in streams]
        self.pid = warm.ask(request, numbers)
        # Can be read when the process has ended. Nobody gets its number before it is waited for.
        self._descriptor = os.pidfd_open(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            ready = select.poll()
            ready.register(self._descriptor, select.POLLIN)
            if not ready.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("rgpt-batch", timeout or 0)
            self._code = self._warm.ask({"wait": self.pid})
            os.close(self._descriptor)
        return self._code

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)
