"""Rows as Parquet files of about one size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_files(
    groups: Iterable[pa.Table], schema: pa.Schema, target_bytes: int
) -> Iterator[memoryview]:
    """Yield files, each in memory; one ends with the row group that reaches the target.

    Args:
        groups: Rows, each table a row group.
        schema: Of all groups.
        target_bytes: Of a file. The last one is smaller.
    """
    stream: pa.BufferOutputStream | None = None
    for group in groups:
        if stream is None:
            stream = pa.BufferOutputStream()
            writer = pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True)
        writer.write_table(group, row_group_size=max(1, group.num_rows))
        if stream.tell() >= target_bytes:
            yield _finished(stream, writer)
            stream = None
    if stream is not None:
        yield _finished(stream, writer)


def _finished(stream: pa.BufferOutputStream, writer: pq.ParquetWriter) -> memoryview:
    writer.close()
    return memoryview(stream.getvalue()).cast("B")
