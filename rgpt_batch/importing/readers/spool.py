"""Rows of text files, written to temporary Parquet, so that DuckDB can join them out of core."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.errors import ConfigError

# A row group ends where one of the two is reached.
_GROUP_ROWS = 50_000
_GROUP_CHARACTERS = 16 * 2**20
_ROWS_PER_REPORT = 1_000_000


class Spool:
    """A folder for temporary Parquet files.

    Attributes:
        folder: Where they are written; whoever made the folder deletes it.
        report: Is called with a line of text whenever there is progress to tell.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self.folder = folder
        self.report = report
        self._numbers = itertools.count()

    def write_rows(self, rows: Iterable[tuple[Any, ...]], schema: pa.Schema, origin: str) -> str:
        """Write rows to a new file in bounded memory; returns its path."""
        return self.write_batches(_batches(rows, schema), schema, origin)

    def write_batches(
        self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, origin: str
    ) -> str:
        """Write record batches to a new file, each as a row group; returns its path."""
        path = self.folder / f"table-{next(self._numbers)}.parquet"
        self.report(f"reading {origin}")
        num_rows = 0
        with self._writing():
            writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=1)
        with writer:
            for batch in batches:
                with self._writing():
                    writer.write_batch(batch)
                before, num_rows = num_rows, num_rows + batch.num_rows
                if num_rows // _ROWS_PER_REPORT > before // _ROWS_PER_REPORT:
                    self.report(f"reading {origin}: {num_rows:,} rows")
            with self._writing():
                writer.close()
        return str(path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Tell a lack of room here from errors of what is read."""
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: cannot hold what is read: {error.strerror or error}. Set "
                "--temp-folder to a folder on a disk with room."
            ) from error


def _batches(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    held: list[tuple[Any, ...]] = []
    num_characters = 0
    for row in rows:
        held.append(row)
        num_characters += sum(len(value) for value in row if isinstance(value, str))
        if len(held) == _GROUP_ROWS or num_characters >= _GROUP_CHARACTERS:
            yield _to_batch(held, schema)
            held, num_characters = [], 0
    if held:
        yield _to_batch(held, schema)


def _to_batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = (list(column) for column in zip(*rows, strict=True))
    return pa.record_batch(list(columns), schema=schema)
