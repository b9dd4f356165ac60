"""A process that has imported what commands need, and becomes a command as often as it is asked.

To import vLLM takes 13 s of CPU, torch and transformers 5 s, the command line alone 1 s; a fork
takes a tenth of a second. What runs after it is what `python -m` runs. The other side is
start.py, which runs this as `python -m tests.commands.warm NUMBER MODULE…`: a socket's number.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import termios
import threading
from typing import Any, NoReturn

from tests.commands import hold

# In one message: the request, and what becomes standard input, output and error.
MAX_BYTES = 2**20
NUM_STREAMS = 3


def main() -> None:
    """Import, then serve requests until the other side closes its end."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    before = dict(os.environ)
    # Ray reads its settings and the token of its cluster on import, and vLLM would import it.
    sys.modules["ray"] = None  # type: ignore[assignment]
    for module in sys.argv[2:]:
        # On some machines there is no vLLM.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    del sys.modules["ray"]
    # vLLM and torch set some, which a command that imports them would find set.
    set_by_imports = {k: v for k, v in os.environ.items() if before.get(k) != v}
    # Nothing of this is garbage; a collection in a command would only copy its pages.
    gc.collect()
    gc.freeze()
    while True:
        message, streams, *_ = socket.recv_fds(connection, MAX_BYTES, NUM_STREAMS)
        if not message:
            break
        request = json.loads(message)
        if (asked := request.get("wait")) is not None:
            answer = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])
        else:
            request["environment"].update(set_by_imports)
            is_ready, ready = os.pipe()
            answer = os.fork()
            if not answer:
                connection.close()
                os.close(is_ready)
                _become(request, streams, ready)
            for number in (*streams, ready):
                os.close(number)
            # As subprocess.Popen: it returns when the session and all else are as asked.
            os.read(is_ready, 1)
            os.close(is_ready)
        connection.sendall(answer.to_bytes(8, "little", signed=True))


def _become(request: dict[str, Any], streams: list[int], ready: int) -> NoReturn:
    """Be the command, from its first line to its exit code."""
    if request["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    if request["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if os.isatty(1):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["path"]:
        # After the folder of the command.
        sys.path.insert(1, request["path"])
        with contextlib.suppress(FileNotFoundError):
            runpy.run_path(os.path.join(request["path"], "sitecustomize.py"))
    hold.install()
    os.close(ready)
    sys.argv = [request["module"], *request["arguments"]]
    code = _run(request["module"])
    # As the interpreter does at its end, but for taking itself apart.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for written in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            written.flush()
    os._exit(code)


def _run(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 128 + signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    main()
