"""Whatever the input holds, every input row gives exactly one output row, in order."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgpt_batch.config.options import InputConfig, UnitsConfig
from rgpt_batch.input.inspect import inspect_shards
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.planning.units import plan_units
from rgpt_batch.records import Rejection, RejectionReason
from tests.jobs import column_chunk, fake_config, overwrite, score
from tests.property.texts import texts

# The tiny tokenizer makes at least one token of every character that is not blank.
REASONS = {"NULL_QUERY", "NULL_DOCUMENT", "EMPTY_QUERY", "QUERY_TOO_LONG"}

rows = st.lists(
    st.fixed_dictionaries(
        {
            "query_id": st.none() | texts,
            "doc_id": st.none() | texts,
            "query": st.none() | texts,
            "document": st.none() | texts,
            "note": st.none() | st.integers(-5, 5),
        }
    ),
    max_size=25,
)
SCHEMA = pa.schema(
    {
        **{name: pa.string() for name in ("query_id", "doc_id", "query", "document")},
        "note": pa.int64(),
    }
)


@given(
    st.lists(rows, min_size=1, max_size=3),
    st.integers(1, 10),
    st.integers(1, 12),
    st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    st.sampled_from([24, 2048]),
)
@settings(max_examples=20)
def test_output_rows_are_the_input_rows(
    tiny_tokenizer: Path,
    files: list[list[dict[str, Any]]],
    row_group_size: int,
    max_rows: int,
    text_type: pa.DataType,
    max_length: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pairs").mkdir()
        for index, file_rows in enumerate(files):
            table = pa.Table.from_pylist(file_rows, schema=SCHEMA)
            for position, column in enumerate(("query_id", "doc_id", "query", "document")):
                table = table.set_column(position, column, table[column].cast(text_type))
            path = folder / "pairs" / f"{index}.parquet"
            pq.write_table(table, path, row_group_size=row_group_size)
        config = fake_config(
            tiny_tokenizer,
            f"units.max_rows={max_rows}",
            f"protocol.max_length={max_length}",
            "output.pass_through=[query, document, note]",
            "output.query_token_logprobs=true",
        )
        scored = score(config, [folder / "pairs"], folder / "scored")
        output = scored.rows

    wanted = [row for file_rows in files for row in file_rows]
    assert [{name: row[name] for name in SCHEMA.names} for row in output] == wanted
    for row in output:
        _check_row(row, max_length)
    assert scored.summary.exit_code == 0
    assert scored.summary.num_rows_scored == len(wanted)


def _check_row(row: dict[str, Any], max_length: int) -> None:
    if row["query"] is None:
        assert row["rejection"] == "NULL_QUERY"
    elif row["document"] is None:
        assert row["rejection"] == "NULL_DOCUMENT"
    elif not row["query"].strip():
        assert row["rejection"] == "EMPTY_QUERY"
    elif max_length == 2048:
        assert row["rejection"] is None
    if row["rejection"] is not None:
        assert row["rejection"] in REASONS
        assert row["score"] is row["sum_logprob"] is row["query_token_logprobs"] is None
        return
    logprobs = row["query_token_logprobs"]
    assert len(logprobs) == row["num_query_tokens"] > 0
    assert row["sum_logprob"] == pytest.approx(sum(logprobs), rel=1e-5)
    assert row["score"] == pytest.approx(sum(logprobs) / len(logprobs), rel=1e-5)
    assert row["num_document_tokens"] + row["num_query_tokens"] < max_length


@given(
    st.sampled_from(["query_id", "doc_id", "query", "document"]),
    st.integers(0, 3),
    st.binary(min_size=1, max_size=40),
    st.floats(0, 1),
    st.booleans(),
    st.sampled_from(["none", "snappy", "zstd"]),
)
@settings(max_examples=60)
def test_damaged_bytes_never_change_the_number_of_rows_or_touch_other_row_groups(
    column: str,
    row_group: int,
    garbage: bytes,
    position: float,
    write_page_checksum: bool,
    compression: str,
) -> None:
    num_rows, group_rows = 80, 20
    table = pa.table(
        {
            "query_id": [f"q{row % 7}" for row in range(num_rows)],
            "doc_id": [f"d{row}" for row in range(num_rows)],
            "query": [f"query number {row % 7}" for row in range(num_rows)],
            "document": [f"document {row} of many" for row in range(num_rows)],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        pq.write_table(
            table,
            path,
            row_group_size=group_rows,
            write_page_checksum=write_page_checksum,
            compression=compression,
        )
        intact = _read(path)
        offset, num_bytes = column_chunk(path, row_group, column)
        garbage = garbage[:num_bytes]
        overwrite(path, offset + int(position * (num_bytes - len(garbage))), garbage)
        damaged = _read(path)

    assert len(damaged) == num_rows
    low, high = row_group * group_rows, (row_group + 1) * group_rows
    assert damaged[:low] == intact[:low]
    assert damaged[high:] == intact[high:]
    unreadable = [outcome for _, outcome in damaged if outcome == _UNREADABLE]
    assert len(unreadable) in (0, group_rows)


_UNREADABLE = Rejection(reason=RejectionReason.UNREADABLE)


def _read(path: Path) -> Sequence[tuple[Any, Any]]:
    shards = inspect_shards([str(path)], InputConfig(), ())
    (unit,) = plan_units(shards, UnitsConfig())
    return [
        (ids, pair)
        for batch in read_pairs(unit, shards[0].columns, source=False)
        for ids, pair in zip(batch.columns.to_pylist(), batch.pairs, strict=True)
    ]
