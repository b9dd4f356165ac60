"""Which rows of an input are wanted: ids are joined by DuckDB, texts never pass through it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rgpt_batch.errors import RgptBatchError
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.inspect import Shard
from rgpt_batch.input.pairs import as_bytes, read_segment

_IDS = pa.schema(
    [
        ("position", pa.int64()),
        ("query_id", pa.large_binary()),
        ("doc_id", pa.large_binary()),
    ]
)


def positions(
    connection: duckdb.DuckDBPyConnection, shards: Sequence[Shard], columns: Columns
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the places of wanted rows, counted over all shards, in order.

    Args:
        connection: With the table chosen of query_id and doc_id.
        shards: The input.
        columns: Its columns.

    Raises:
        ShardError, StorageError: A shard cannot be read.
    """
    errors: list[RgptBatchError] = []
    reader = pa.RecordBatchReader.from_batches(_IDS, _ids(shards, columns, errors))
    connection.register("ids", reader)
    # The input is a stream of unknown length: the other side is held.
    connection.execute("SET disabled_optimizers = 'build_side_probe_side'")
    try:
        found = connection.execute(
            "SELECT position FROM ids SEMI JOIN (SELECT encode(query_id) AS query_id, "
            "encode(doc_id) AS doc_id FROM chosen) USING (query_id, doc_id) ORDER BY position"
        )
        for batch in found.to_arrow_reader():
            yield batch["position"].to_numpy()
    except duckdb.Error as error:
        # DuckDB reports what reading has raised as an error of its own.
        raise errors[0] if errors else error from error


def pick(
    batches: Iterable[pa.RecordBatch], wanted: Iterator[npt.NDArray[np.int64]]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows at some places, counted over all batches and in order."""
    first = 0
    held: npt.NDArray[np.int64] | None = next(wanted, None)
    for batch in batches:
        end = first + batch.num_rows
        rows = []
        while held is not None:
            cut = int(np.searchsorted(held, end))
            rows.append(held[:cut] - first)
            if cut < len(held):
                held = held[cut:]
                break
            held = next(wanted, None)
        picked = np.concatenate(rows) if rows else np.empty(0, np.int64)
        if len(picked):
            yield batch.take(pa.array(picked))
        first = end


def _ids(
    shards: Sequence[Shard], columns: Columns, errors: list[RgptBatchError]
) -> Iterator[pa.RecordBatch]:
    position = 0
    try:
        for shard in shards:
            for batch, _ in read_segment(shard.whole, [columns.query_id, columns.doc_id]):
                if isinstance(batch, pa.RecordBatch):
                    places = pa.array(np.arange(position, position + batch.num_rows))
                    ids = [as_bytes(batch[name]) for name in (columns.query_id, columns.doc_id)]
                    yield pa.record_batch([places, *ids], schema=_IDS)
                position += batch.num_rows
    except RgptBatchError as error:
        errors.append(error)
        raise
