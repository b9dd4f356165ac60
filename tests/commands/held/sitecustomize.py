"""Installs hold.py in interpreters that have this folder first on their PYTHONPATH."""

import os
import runpy
import sys

_here = os.path.dirname(os.path.abspath(__file__))
runpy.run_path(os.path.join(_here, "..", "hold.py"))["install"]()
# Python looks for one sitecustomize only; the next on the path may hide torch.
for _folder in sys.path:
    _next = os.path.join(_folder, "sitecustomize.py")
    if os.path.abspath(_folder) != _here and os.path.isfile(_next):
        runpy.run_path(_next)
        break
