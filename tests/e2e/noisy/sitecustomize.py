"""Prints whenever a process sleeps that has this folder on its PYTHONPATH: the fake engine does.

As libraries do it: to both file descriptors, from Python and from another process.
"""

import os
import time
import warnings
from typing import SupportsIndex

_sleep = time.sleep


def _sleep_aloud(seconds: float | SupportsIndex) -> None:
    os.write(1, b"NOISE to descriptor 1\n")
    os.write(2, b"NOISE to descriptor 2\n")
    print("NOISE from print")
    warnings.warn(f"NOISE from a warning before {seconds} s", stacklevel=2)
    os.system("echo NOISE of a child; echo NOISE of a child >&2")
    _sleep(seconds)


time.sleep = _sleep_aloud
