"""Complete outputs of any size, written by the real stores without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rgpt_batch.output import Store, open_store
from rgpt_batch.output.inspect import describe_files
from rgpt_batch.output.score_file import SCORE_SCHEMA, Footer, serialize
from rgpt_batch.output.success import Success
from tests.output.tables import manifest

FINGERPRINT = "0123456789abcdef"


def rows(
    first: int, number: int, *, shift: float = 0.0, extra: Mapping[str, Any] | None = None
) -> pa.Table:
    """Rows of a unit: row i has the id d<i>; every tenth is rejected."""
    numbers = range(first, first + number)
    columns: dict[str, Any] = {
        "query_id": [f"q{i % 7}" for i in numbers],
        "doc_id": [f"d{i}" for i in numbers],
        "score": [None if i % 10 == 9 else -(i % 97) / 10 - shift for i in numbers],
        "sum_logprob": [None if i % 10 == 9 else -(i % 97) / 2 for i in numbers],
        "num_query_tokens": [i % 5 + 1 for i in numbers],
        "num_document_tokens": [i % 50 for i in numbers],
        "num_dropped_document_tokens": [0 for _ in numbers],
        "rejection": ["EMPTY_QUERY" if i % 10 == 9 else None for i in numbers],
    }
    table = pa.table(columns, schema=SCORE_SCHEMA)
    hashes = pa.array([i.to_bytes(16, "big") for i in numbers], pa.binary(16))
    lists = pa.array([[-1.0] * (i % 3) for i in numbers], pa.list_(pa.float32()))
    table = table.append_column("query_token_logprobs", lists).append_column("pair_hash", hashes)
    for name, values in (extra or {}).items():
        column = values if isinstance(values, pa.Array) else pa.array(values)
        table = table.append_column(name, column)
    return table


def write_output(
    output: str, *units: pa.Table, fingerprint: str = FINGERPRINT, finish: bool = True
) -> Store:
    """Write an output folder, a path or URI, over an earlier one; a table is a unit's rows."""
    store = open_store(output)
    store.clear()
    store.save_manifest(manifest(fingerprint, num_units=len(units)))
    for number, table in enumerate(units):
        unit_id = f"{number:06d}"
        footer = Footer(
            fingerprint=fingerprint,
            unit_id=unit_id,
            attempt="a",
            num_rows=table.num_rows,
            num_rejected={},
            model="m",
            protocol="card",
            engine="fake",
            versions={},
        )
        store.commit(unit_id, "a", serialize(table, footer))
    if finish:
        files, problems = describe_files(store.committed())
        assert not problems
        num_rows = sum(table.num_rows for table in units)
        store.write_success(Success.of(files, fingerprint, num_rows))
    return store
