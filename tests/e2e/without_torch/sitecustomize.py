"""Hides torch from processes that have this folder on their PYTHONPATH."""

from __future__ import annotations

import importlib.machinery
from typing import Any

_find_spec = importlib.machinery.PathFinder.find_spec


def _find_spec_but_torch(name: str, path: Any = None, target: Any = None) -> Any:
    return None if name == "torch" else _find_spec(name, path, target)


importlib.machinery.PathFinder.find_spec = _find_spec_but_torch  # type: ignore[method-assign, assignment]
