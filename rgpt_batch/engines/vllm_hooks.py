"""Which parts of vLLM that are not public are there. Looked up by name, never by version number."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hook:
    """A class of vLLM and what is needed of it: methods, attributes or fields."""

    module: str
    name: str
    members: tuple[str, ...] = ()


def missing(hooks: Sequence[Hook]) -> list[str]:
    """Name the hooks that this vLLM does not have, as dotted paths."""
    names = []
    for hook in hooks:
        path = f"{hook.module}.{hook.name}"
        try:
            owner = vars(importlib.import_module(hook.module)).get(hook.name)
        except ImportError:
            owner = None
        if owner is None:
            names.append(path)
            continue
        # Fields of dataclasses that have no default exist as annotations alone.
        members = {*dir(owner), *inspect.get_annotations(owner)}
        names += [f"{path}.{member}" for member in hook.members if member not in members]
    return names
