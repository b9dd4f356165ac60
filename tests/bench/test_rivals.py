"""What `benchmarks/rivals.py` and `benchmarks/chaos.py` count, on tables of a few rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.chaos import Differences, compare
from benchmarks.rival_jobs import read_rows
from benchmarks.rival_processes import rows_scored
from benchmarks.rivals import by_id
from benchmarks.rivals_table import keep

WriteOutput = Callable[..., Path]
CLEAN = {"a": -1.0, "b": -2.0, "c": -3.0}


@pytest.fixture
def write_output(tmp_path: Path) -> WriteOutput:
    """Write an output of one file per argument, each with rows of id → score."""

    def write(*files: dict[str, float | None]) -> Path:
        (tmp_path / "output").mkdir()
        for number, rows in enumerate(files):
            scores = pa.array(rows.values(), pa.float64())
            table = pa.table({"id": list(rows), "score": scores})
            pq.write_table(table, tmp_path / "output" / f"part-{number}.parquet")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([CLEAN], Differences(lost=0, doubled=0, changed=0)),
        ([{"c": -3.0}, {"b": -2.0, "a": -1.0}], Differences(lost=0, doubled=0, changed=0)),
        ([{"a": -1.0}], Differences(lost=2, doubled=0, changed=0)),
        ([CLEAN, {"a": -1.0, "b": -2.0}, {"a": -1.0}], Differences(lost=0, doubled=3, changed=0)),
        ([CLEAN | {"b": -2.5}], Differences(lost=0, doubled=0, changed=1)),
        ([CLEAN | {"b": None}], Differences(lost=0, doubled=0, changed=1)),
        ([CLEAN | {"d": -4.0}], Differences(lost=0, doubled=1, changed=0)),
        ([{"a": -9.0}, CLEAN], Differences(lost=0, doubled=1, changed=0)),
        ([], Differences(lost=3, doubled=0, changed=0)),
    ],
)
def test_each_row_that_is_not_as_it_should_be_is_counted_once(
    write_output: WriteOutput, files: list[dict[str, float | None]], expected: Differences
) -> None:
    there = by_id(read_rows("ray-data", write_output(*files)))
    assert compare(by_id(CLEAN.items()), there) == expected


def test_a_half_written_file_holds_no_rows(write_output: WriteOutput) -> None:
    folder = write_output(CLEAN, {"d": -4.0})
    half = folder / "output" / "part-1.parquet"
    half.write_bytes(half.read_bytes()[:-20])
    assert by_id(read_rows("ray-data", folder)) == by_id(CLEAN.items())


def test_rows_are_counted_for_each_process_that_has_begun_to_score_them(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    assert rows_scored(journal) == {}
    journal.write_text("7 20\n8 20\n7 5\n")
    assert rows_scored(journal) == {7: 25, 8: 20}


def test_a_new_result_takes_the_place_of_its_own_systems_old_one(tmp_path: Path) -> None:
    def result(system: str, lost: int) -> dict[str, object]:
        campaign = {"jobs": 2, "rows_lost": lost, "rows_wanted": 200, "rows_scored": 230}
        versions = {"ray": "2.60.0"}
        bad = {"row": "kill", "setting": "skip", "exit_codes": [0], "good_rows_scored": 90}
        bad |= {"rows_without_score": 0, "rows_missing": 10, "rows_doubled": 0, "rows_changed": 0}
        return {
            "system": system,
            "versions": versions,
            "seed": 1,
            "campaign": campaign,
            "bad_rows": [bad],
        }

    path = tmp_path / "2026-11-27-rivals.jsonl"
    for one in (result("ray-data", 3), result("daft-delta", 4), result("ray-data", 5)):
        keep(path, one)
    text = path.with_suffix(".md").read_text()
    assert "| | daft-delta | ray-data |" in text
    assert "| rows lost | 4 | 5 |" in text
    assert "| rows scored again | 15% | 15% |" in text
    assert (
        "| ray-data | max_errored_blocks=-1, max_restarts=6, max_task_retries=2 | kills |" in text
    )
