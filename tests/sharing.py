"""How several processes share the tests (pytest-xdist)."""

from __future__ import annotations

import functools

from xdist.scheduler import LoadScopeScheduling

from tests.conftest import ROOT

RAY = "Ray"


class ByModule(LoadScopeScheduling):
    """Keeps a module's tests in one process, so that its fixtures are made once.

    All that start Ray stay together too, one after the other, but for engines in Ray, which take a
    fifth of that time: clusters of three processes would take each other's cores, and Ray gives its
    daemons 30 s to start. xdist's own groups, --dist=loadgroup, do nothing with pytest 9.2
    (pytest-xdist 3.8.0, its issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.split("::")[0])


@functools.cache
def group(module: str) -> str:
    """Name what a module shares a process with: itself, or others that start Ray."""
    source = (ROOT / module).read_text(encoding="utf-8")
    if "mark.ray" not in source:
        return module
    return RAY + (" and vLLM" if "mark.vllm" in source else "")
