"""Notes what the fake engine scores, in any process that has this folder on its PYTHONPATH.

Each time the fake engine begins to score, a line with the process and the number of rows is added
to the file RIVALS_JOURNAL. RIVALS_BAD_ROW says what a row of more than 100 tokens does: `raise` or
`kill`. Torch is hidden too: Python looks for one sitecustomize only.
"""

import importlib.abc
import importlib.machinery
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_HERE = os.path.dirname(__file__)
_HIDES_TORCH = ("..", "..", "tests", "e2e", "without_torch", "sitecustomize.py")
runpy.run_path(os.path.join(_HERE, *_HIDES_TORCH))

_ENGINE = "rgpt_batch.engines.fake"
_MAX_TOKENS = 100


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the fake engine's module as Python does, and has it changed once it is loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != _ENGINE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert isinstance(spec.loader, importlib.machinery.SourceFileLoader)
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        fake_engine = module.FakeEngine

        class NotingEngine(fake_engine):  # type: ignore[misc, valid-type]
            """Notes the rows before it scores them."""

            def score(self, pairs: Sequence[Any]) -> list[Any]:
                _note(pairs)
                return list(super().score(pairs))

        module.FakeEngine = NotingEngine  # type: ignore[attr-defined]


def _note(pairs: Sequence[Any]) -> None:
    journal = os.open(os.environ["RIVALS_JOURNAL"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(journal, f"{os.getpid()} {len(pairs)}\n".encode())
    os.close(journal)
    bad_row = os.environ.get("RIVALS_BAD_ROW")
    if bad_row and any(len(pair.token_ids) > _MAX_TOKENS for pair in pairs):
        if bad_row == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("this row cannot be scored")


if "RIVALS_JOURNAL" in os.environ:
    sys.meta_path.insert(0, _Finder())
