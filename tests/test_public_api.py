"""What users import from rgpt_batch is complete, and its types reach their type checkers."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rgpt_batch
from tests.conftest import ROOT

PUBLIC = {name: getattr(rgpt_batch, name) for name in rgpt_batch.__all__}
FUNCTIONS = [name for name, each in PUBLIC.items() if inspect.isfunction(each)]
DATACLASSES = [name for name, each in PUBLIC.items() if dataclasses.is_dataclass(each)]


def _own_classes(annotation: Any) -> Iterator[type]:
    """The classes of ours in a type, in whatever it is wrapped."""
    if inspect.isclass(annotation) and annotation.__module__.startswith("rgpt_batch."):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _own_classes(part)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_take_and_return_public_types(name: str) -> None:
    found = {
        each for hint in typing.get_type_hints(PUBLIC[name]).values() for each in _own_classes(hint)
    }
    assert found, "every public function has to do with a class of ours"
    assert {each.__name__ for each in found} <= PUBLIC.keys()


@pytest.mark.parametrize(
    "name", [n for n, each in PUBLIC.items() if dataclasses.is_dataclass(each)]
)
def test_public_classes_have_fields_of_public_types(name: str) -> None:
    hints = typing.get_type_hints(PUBLIC[name]).values()
    assert {each.__name__ for hint in hints for each in _own_classes(hint)} <= PUBLIC.keys()


# With types that do not arrive, all would be Any: assert_type fails, and so does strict, to which
# a `type: ignore` without an error is one.
USER_SCRIPT = """
from pathlib import Path

from typing_extensions import assert_type

from rgpt_batch import (
    JobConfig,
    JobSummary,
    Parity,
    TextTables,
    TopPairs,
    UnitFailure,
    Verification,
    load_config,
    run_job,
    verify_output,
)
from rgpt_batch.errors import RgptBatchError

config = load_config(Path("job.yaml"), ["model.dtype=float32"])
assert_type(config, JobConfig)
tables = TextTables(queries="queries.parquet", documents=[Path("corpus")])
top = TopPairs(Path("small"), 20)
try:
    summary = run_job(config, [Path("pairs")], "s3://bucket/scored", tables=tables, only=top)
except RgptBatchError as error:
    raise SystemExit(str(error)) from error
assert_type(summary, JobSummary)
assert_type(summary.parity, Parity | None)
assert_type(summary.failures, tuple[UnitFailure, ...])
assert_type(verify_output("scored", num_rescored=3), Verification)
run_job(config, "pairs", "scored", on_change="delete")  # type: ignore[arg-type]
verify_output(3)  # type: ignore[arg-type]
"""


def test_a_typed_script_of_a_user_passes_mypy_strict(tmp_path: Path) -> None:
    # 30 s on two cores when mypy's cache is cold. The package is found as users' are: installed,
    # with its py.typed.
    script = tmp_path / "script.py"
    script.write_text(USER_SCRIPT)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(script)]
    done = subprocess.run(
        [*command, "--cache-dir", str(ROOT / ".mypy_cache" / "user")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "MYPYPATH"},
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
