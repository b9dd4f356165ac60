"""Commands that need every pair of a job tell a complete output from one that says that it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rgpt_batch.errors import ConfigError
from rgpt_batch.ranking.compare import compare
from rgpt_batch.ranking.evaluate import evaluate
from rgpt_batch.ranking.rank import rank
from tests.ranking.files import write_lines, write_scored, write_success


def _missing(folder: Path) -> None:
    (folder / "part-000001.parquet").unlink()


def _another(folder: Path) -> None:
    write_scored(folder / "part-000002.parquet", [("q", "c", -3.0)])


def _other_rows(folder: Path) -> None:
    write_scored(folder / "part-000001.parquet", [("q", "b", -2.0), ("q", "c", -3.0)])


def _unknown(folder: Path) -> None:
    (folder / "_SUCCESS").write_text('{"every_file": []}')


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_missing, r"part-000001\.parquet is missing"),
        (_another, r"part-000002\.parquet is not named there"),
        (_other_rows, r"part-000001\.parquet is of another size"),
        (_unknown, "its _SUCCESS is damaged, or of another version of rgpt-batch"),
    ],
)
def test_success_is_believed_only_of_the_files_that_it_names(
    tmp_path: Path, change: Callable[[Path], None], problem: str
) -> None:
    folder = tmp_path / "scored"
    write_scored(folder / "part-000000.parquet", [("q", "a", -1.0)])
    write_scored(folder / "part-000001.parquet", [("q", "b", -2.0)])
    write_success(folder)
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    change(folder)
    whole = write_scored(tmp_path / "whole.parquet", [("q", "a", -1.0)])
    for read in (
        lambda: rank([str(folder)], str(tmp_path / "run.parquet"), top_k=10),
        lambda: evaluate(str(folder), str(qrels)),
        lambda: evaluate(str(whole), str(qrels), baseline=str(folder)),
        lambda: compare(str(whole), str(folder)),
    ):
        with pytest.raises(ConfigError, match=rf"{problem}\. Run its job again, or name"):
            read()
    assert not (tmp_path / "run.parquet").exists()
