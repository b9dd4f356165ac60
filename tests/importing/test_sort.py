"""Sorting out of core gives every value back as it was, of every type that is not refused."""

from __future__ import annotations

import decimal
import random
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.sort import Keys, check_sortable, sort_rows

INVALID = b"\xff\xfe"


def sort(
    batches: Iterable[pa.RecordBatch], folder: Path, *, key_bits: int = 64, num_bytes: int = 2**26
) -> pa.Table:
    """Sort by the column key, with so many bytes for a run."""
    given = iter(batches)
    first = next(given)
    rows = sort_rows(
        ((batch["key"].cast(pa.uint64()).to_numpy(), batch) for batch in chain([first], given)),
        first.schema,
        key_bits=key_bits,
        memory_gib=num_bytes / 2**28,
        folder=str(folder),
        remedy="",
    )
    return pa.Table.from_batches(list(rows), first.schema)


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
        (pa.timestamp("ns", "UTC"), [1, 2**61 + 1, None]),
        (pa.duration("s"), [1, 2, None]),
        (pa.struct([("a", pa.string())]), [{"a": "x"}, {"a": None}, None]),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["a"], [], None]),
        (pa.map_(pa.string(), pa.int8()), [[("a", 1)], [], None]),
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
    found = sort([batch], tmp_path)
    assert found.schema == batch.schema
    first, second, third = column.to_pylist()
    assert found["value"].to_pylist() == [second, third, first]
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_text_stay_as_they_are(tmp_path: Path) -> None:
    bad = pa.array([b"fine", INVALID, None], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, bad.buffers())
    batch = pa.record_batch({"key": pa.array([3, 1, 2]), "value": text})
    found = sort([batch], tmp_path)
    assert found["value"].cast(pa.binary()).to_pylist() == [INVALID, None, b"fine"]


def test_a_type_that_cannot_be_put_in_another_order_is_refused() -> None:
    given = pa.run_end_encoded(pa.int32(), pa.int64())
    with pytest.raises(ConfigError, match=r"column 'value' is run_end_encoded.*cannot be carried"):
        check_sortable(pa.schema([("key", pa.int64()), ("value", given)]))


@pytest.mark.parametrize("num_bytes", [2**12, 2**15, 2**20])
@pytest.mark.parametrize("key_bits", [3, 9, 20, 64])
@pytest.mark.parametrize("num_keys", [1, 5, 3000])
def test_rows_are_sorted_however_little_fits_into_memory(
    tmp_path: Path, num_bytes: int, key_bits: int, num_keys: int
) -> None:
    chooser = random.Random(num_keys)
    num_keys = min(num_keys, 2**key_bits)
    keys = [chooser.randrange(2**key_bits) for _ in range(num_keys)]
    table = pa.table(
        {
            "key": pa.array([chooser.choice(keys) for _ in range(3000)], pa.uint64()),
            "text": [f"row {row} " * (row % 9) for row in range(3000)],
            "row": range(3000),
        }
    )
    found = sort(
        table.to_batches(max_chunksize=100), tmp_path, key_bits=key_bits, num_bytes=num_bytes
    )
    # Rows with equal keys stay in the order they had.
    assert found.equals(table.sort_by([("key", "ascending"), ("row", "ascending")]))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_what_is_read_is_not_hidden(tmp_path: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"key": pa.array([1])})
        raise ShardError("x.parquet: is gone.")

    with pytest.raises(ShardError, match=r"^x\.parquet: is gone\.$"):
        sort(batches(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_keys", [1, 2, 20_000])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, num_keys: int) -> None:
    chooser = random.Random(0)
    before = pa.total_allocated_bytes()
    run_bytes = 2**20

    def rows() -> Iterator[tuple[Keys, pa.RecordBatch]]:
        for _ in range(400):
            keys = np.array([chooser.randrange(num_keys) for _ in range(100)], np.uint64)
            yield keys, pa.record_batch({"text": [f"{key:05}" * 400 for key in keys]})

    schema = pa.schema([("text", pa.string())])
    last, num_rows, num_bytes, most = "", 0, 0, 0
    for batch in sort_rows(
        rows(),
        schema,
        key_bits=64,
        memory_gib=run_bytes / 2**28,
        folder=str(tmp_path),
        remedy="",
    ):
        first, following = batch["text"][0].as_py(), batch["text"][-1].as_py()
        assert last <= first <= following
        last = following
        num_rows += batch.num_rows
        num_bytes += batch.nbytes
        most = max(most, pa.total_allocated_bytes() - before)
    assert num_rows == 40_000
    assert num_bytes > 70 * run_bytes
    assert most < 8 * run_bytes
