"""Sets the clock of processes that have this folder on their PYTHONPATH, before every look at it.

JUMPING_CLOCK_SECONDS is how far it goes forward and back in turns. Torch is hidden too: Python
looks for one sitecustomize only.
"""

import itertools
import os
import runpy
import time

runpy.run_path(os.path.join(os.path.dirname(__file__), "..", "without_torch", "sitecustomize.py"))

_time, _time_ns = time.time, time.time_ns
_jumps = itertools.cycle((1, -1, -3, 2))
_seconds = int(os.environ.get("JUMPING_CLOCK_SECONDS", "0"))


time.time = lambda: _time() + _seconds * next(_jumps)
time.time_ns = lambda: _time_ns() + 10**9 * _seconds * next(_jumps)
