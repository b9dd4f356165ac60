"""Stops processes that have this folder on their PYTHONPATH at a system call.

PAUSE_AT is the audit event and the start of the file's name, as in `os.remove _SUCCESS`. The first
time, the process makes the file PAUSE_FILE and waits until somebody has deleted it. Torch is hidden
too: Python looks for one sitecustomize only.
"""

import os
import runpy
import sys
import time
from typing import Any

runpy.run_path(os.path.join(os.path.dirname(__file__), "..", "without_torch", "sitecustomize.py"))

_event, _, _name = os.environ.get("PAUSE_AT", "").partition(" ")
_file = os.environ.get("PAUSE_FILE")
_is_over = False


def _pause(event: str, arguments: tuple[Any, ...]) -> None:
    global _is_over
    if event != _event or _is_over or not _file:
        return
    # Of a rename, the second path is the new name.
    path = arguments[1] if event == "os.rename" else arguments[0]
    if not os.path.basename(os.fsdecode(path)).startswith(_name):
        return
    _is_over = True
    with open(_file, "x"):
        pass
    while os.path.exists(_file):
        time.sleep(0.01)


sys.addaudithook(_pause)
