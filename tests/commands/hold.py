"""Has a process wait at a system call for as long as a file exists.

HOLD_AT is the audit event and the start of the file's name, as in `os.remove _SUCCESS`, and how
often it may happen before, in all processes together: `os.link part- 3`. HOLD_FILE is the file.
Who waits there has made HOLD_FILE.there before. So a test does something in the middle of a job,
however slow it is itself.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

HELD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "held")


def install() -> None:
    """Hold this process where its environment asks for it."""
    asked, file = os.environ.get("HOLD_AT"), os.environ.get("HOLD_FILE")
    if not asked or not file:
        return
    held_event, start, *number = asked.split(" ")
    free = [f"{file}.{i}" for i in range(int(number[0]) if number else 0)]

    def take(turn: str) -> bool:
        try:
            with open(turn, "x"):
                return True
        except FileExistsError:
            return False

    def hold(event: str, arguments: tuple[Any, ...]) -> None:
        if event != held_event:
            return
        # Of a rename and of a link, the second path is the new name.
        path = arguments[1] if event in ("os.rename", "os.link") else arguments[0]
        name = os.path.basename(os.fsdecode(path))
        if not name.startswith(start) or not os.path.exists(file) or any(map(take, free)):
            return
        with open(file + ".there", "w"):
            pass
        while os.path.exists(file):
            time.sleep(0.01)

    sys.addaudithook(hold)
