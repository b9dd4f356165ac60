"""The control: what the kill tests compare with does see a lost and a doubled row."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import parts


@pytest.fixture
def copy(clean_output: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clean_output, tmp_path / "copy")


def rewrite(part: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(part)), part)


def test_a_copy_has_no_differences(copy: Path, clean_rows: pa.Table) -> None:
    assert row_differences(clean_rows, read_output(copy)) == []


def test_a_lost_row_is_seen(copy: Path, clean_rows: pa.Table) -> None:
    rewrite(parts(copy)[5], lambda table: table.slice(1))
    differences = row_differences(clean_rows, read_output(copy))
    assert [text.split(":")[0] for text in differences] == ["missing"]


def test_a_doubled_row_is_seen(copy: Path, clean_rows: pa.Table) -> None:
    rewrite(parts(copy)[5], lambda table: pa.concat_tables([table, table.slice(2, 1)]))
    differences = row_differences(clean_rows, read_output(copy))
    assert [text.split(":")[0] for text in differences] == ["too many"]


def test_a_lost_and_a_doubled_file_are_seen(copy: Path, clean_rows: pa.Table) -> None:
    first, *_, last = parts(copy)
    first.unlink()
    assert len(row_differences(clean_rows, read_output(copy))) == 4
    shutil.copy(last, copy / "part-000099.parquet")
    assert len(row_differences(clean_rows, read_output(copy))) == 8


def test_a_row_in_the_place_of_another_is_seen(copy: Path, clean_rows: pa.Table) -> None:
    rewrite(parts(copy)[5], lambda table: table.take([0, 1, 1, 3]))
    assert len(row_differences(clean_rows, read_output(copy))) == 2


def test_a_changed_score_is_seen(copy: Path, clean_rows: pa.Table) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(
            2, table.schema.field(2), pc.subtract(table["score"], pa.scalar(0.001, pa.float32()))
        )

    rewrite(parts(copy)[6], change)
    assert len(row_differences(clean_rows, read_output(copy))) == 8


def test_another_order_is_seen(copy: Path, clean_rows: pa.Table) -> None:
    rewrite(parts(copy)[5], lambda table: table.take([1, 0, 2, 3]))
    assert row_differences(clean_rows, read_output(copy)) == ["the order differs"]


def test_a_file_that_is_written_again_is_seen(copy: Path) -> None:
    before = identities(copy)
    rewrite(parts(copy)[5], lambda table: table)
    assert identities(copy) != before
