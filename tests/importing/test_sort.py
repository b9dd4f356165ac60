"""Sorting out of core gives every value back as it was, of every type that is not refused."""

from __future__ import annotations

import decimal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.sort import check_sortable, sort_rows

INVALID = b"\xff\xfe"


def sort(batches: Iterator[pa.RecordBatch], schema: pa.Schema, folder: Path) -> pa.Table:
    rows = sort_rows(batches, schema, "key", memory_gib=0.25, folder=str(folder), remedy="")
    return pa.Table.from_batches(list(rows), schema)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (pa.string(), ["a", "", None]),
        (pa.large_string(), ["é\x00", "b", None]),
        (pa.string_view(), ["long " * 20, "b", None]),
        (pa.binary(), [INVALID, b"", None]),
        (pa.binary(2), [INVALID, b"ab", None]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None]),
        (pa.dictionary(pa.int32(), pa.int64()), [7, 2**60, None]),
        (pa.bool_(), [True, False, None]),
        (pa.uint64(), [2**64 - 1, 0, None]),
        (pa.float32(), [0.1, float("inf"), None]),
        (pa.float64(), [0.1, -0.0, None]),
        (pa.date32(), [1, -400_000, None]),
        (pa.timestamp("ns"), [1, 2**62, None]),
        (pa.timestamp("us", "Europe/Berlin"), [1, 2**50, None]),
        (pa.decimal128(20, 3), [decimal.Decimal("1.250"), decimal.Decimal("-7.001"), None]),
        (pa.list_(pa.string()), [["a", None], [], None]),
        (pa.large_list(pa.float32()), [[0.1], [], None]),
        (pa.null(), [None, None, None]),
    ],
    ids=str,
)
def test_values_come_out_as_they_went_in(
    tmp_path: Path, given: pa.DataType, values: list[Any]
) -> None:
    column = pa.nulls(3) if pa.types.is_null(given) else pa.array(values, given)
    batch = pa.record_batch({"key": pa.array([3, 1, 2]), "value": column})
    check_sortable(batch.schema)
    found = sort(iter([batch]), batch.schema, tmp_path)
    assert found.schema == batch.schema
    first, second, third = column.to_pylist()
    assert found["value"].to_pylist() == [second, third, first]
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_text_stay_as_they_are(tmp_path: Path) -> None:
    bad = pa.array([b"fine", INVALID, None], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, bad.buffers())
    batch = pa.record_batch({"key": pa.array([3, 1, 2]), "value": text})
    found = sort(iter([batch]), batch.schema, tmp_path)
    assert found["value"].cast(pa.binary()).to_pylist() == [INVALID, None, b"fine"]


@pytest.mark.parametrize(
    "given",
    [
        pa.timestamp("ns", "UTC"),
        pa.float16(),
        pa.duration("s"),
        pa.decimal256(50, 2),
        pa.struct([("a", pa.int32())]),
        pa.list_(pa.timestamp("ns", "UTC")),
    ],
    ids=str,
)
def test_types_that_would_not_come_back_whole_are_refused(given: pa.DataType) -> None:
    with pytest.raises(ConfigError, match=r"column 'value' is .*cannot be carried"):
        check_sortable(pa.schema([("key", pa.int64()), ("value", given)]))


def test_an_error_of_what_is_read_is_not_hidden(tmp_path: Path) -> None:
    schema = pa.schema([("key", pa.int64())])

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"key": pa.array([1])})
        raise ShardError("x.parquet: is gone.")

    with pytest.raises(ShardError, match=r"^x\.parquet: is gone\.$"):
        sort(batches(), schema, tmp_path)
    assert list(tmp_path.iterdir()) == []
