"""How several processes share the tests (pytest-xdist)."""

from __future__ import annotations

import functools

from xdist.scheduler import LoadScopeScheduling

from tests.conftest import ROOT


class ByModule(LoadScopeScheduling):
    """Keeps a module's tests in one process, so that its fixtures are made once.

    Modules of a folder that start Ray stay together too, one after the other: their clusters and
    those of other processes would take each other's cores. xdist's own groups, --dist=loadgroup,
    do nothing with pytest 9.2 (pytest-xdist 3.8.0, its issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.split("::")[0])


@functools.cache
def group(module: str) -> str:
    """Name what a module shares a process with: itself, or Ray's modules of its folder."""
    source = (ROOT / module).read_text(encoding="utf-8")
    if "mark.ray" not in source:
        return module
    # Engines in Ray take as long as all the rest of Ray.
    return f"{module.rpartition('/')[0]}: Ray" + (" and vLLM" if "mark.vllm" in source else "")
