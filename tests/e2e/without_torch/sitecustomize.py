"""Hides torch from processes that have this folder on their PYTHONPATH."""

import importlib.machinery

_find_spec = importlib.machinery.PathFinder.find_spec


def _find_spec_but_torch(name, path=None, target=None):
    return None if name == "torch" else _find_spec(name, path, target)


importlib.machinery.PathFinder.find_spec = _find_spec_but_torch
