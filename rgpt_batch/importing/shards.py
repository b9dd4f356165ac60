"""Pair shards: how rows are cut into row groups and files, and how a folder of them appears.

A unit is put together of row groups (see planning.units). So where the rows of a document follow
each other, row groups end where documents do, and no unit cuts a document's rows in two: an engine
with a prefix cache reads each document once.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rgpt_batch.config.options import UnitsConfig
from rgpt_batch.errors import ConfigError

ROWS_PER_SHARD = 100_000

# A row group ends where one of the two is reached.
_GROUP_ROWS = 10_000
_GROUP_BYTES = 32 * 2**20
# So many row groups fill a unit: how finely units can be filled.
_GROUPS_PER_UNIT = 8


def write_shards(groups: Iterable[pa.Table], folder: Path, rows_per_shard: int) -> int:
    """Write row groups to files pairs-00000.parquet and so on; returns how many there are.

    A file ends with the row group that brings it to rows_per_shard.
    """
    num_shards = num_rows = 0
    writer: pq.ParquetWriter | None = None
    for group in groups:
        if writer is None:
            path = folder / f"pairs-{num_shards:05d}.parquet"
            writer = pq.ParquetWriter(
                path, group.schema, compression="zstd", write_page_checksum=True
            )
            num_shards, num_rows = num_shards + 1, 0
        writer.write_table(group)
        num_rows += group.num_rows
        if num_rows >= rows_per_shard:
            _close(writer, path)
            writer = None
    if writer is not None:
        _close(writer, path)
    return num_shards


def row_groups(batches: Iterable[pa.RecordBatch], rows_per_shard: int) -> Iterator[pa.Table]:
    """Cut a stream of rows into row groups, none of which is in two shards."""
    held: list[pa.RecordBatch] = []
    num_held = num_bytes = num_in_shard = 0
    for batch in batches:
        while batch.num_rows:
            room = min(_GROUP_ROWS - num_held, rows_per_shard - num_in_shard)
            head, batch = batch.slice(0, room), batch.slice(room)
            held.append(head)
            num_held += head.num_rows
            num_in_shard += head.num_rows
            num_bytes += head.nbytes
            is_full = num_held == _GROUP_ROWS or num_bytes >= _GROUP_BYTES
            if is_full or num_in_shard == rows_per_shard:
                yield pa.Table.from_batches(held)
                held, num_held, num_bytes = [], 0, 0
                num_in_shard %= rows_per_shard
    if held:
        yield pa.Table.from_batches(held)


def document_groups(
    batches: Iterable[pa.RecordBatch], column: str, units: UnitsConfig
) -> Iterator[pa.Table]:
    """Cut a stream of rows into row groups that end where documents do.

    Args:
        batches: Rows of the same document follow each other.
        column: What tells documents apart.
        units: The units that the row groups are to fill. A document with more rows than fit into a
            unit is cut.
    """
    full_rows = max(1, units.max_rows // _GROUPS_PER_UNIT)
    full_bytes = max(1, units.max_bytes // _GROUPS_PER_UNIT)
    held: list[pa.RecordBatch] = []
    num_held = num_bytes = 0
    last: pa.Array | None = None
    for batch in filter(len, batches):
        starts = _starts(batch[column], last)
        last = batch[column][-1:]
        row_bytes = max(1, batch.nbytes // batch.num_rows)
        low = 0
        while low < batch.num_rows:
            room = min(full_rows - num_held, -(-(full_bytes - num_bytes) // row_bytes))
            # The first document that begins when the group is full.
            later = starts[np.searchsorted(starts, low + max(room, 0 if held else 1)) :]
            high = int(later[0]) if len(later) else batch.num_rows
            if high > low:
                held.append(batch.slice(low, high - low))
                num_held += high - low
                num_bytes += (high - low) * row_bytes
            is_over = num_held >= units.max_rows or num_bytes >= units.max_bytes
            if len(later) or is_over:
                yield pa.Table.from_batches(held)
                held, num_held, num_bytes = [], 0, 0
            low = high
    if held:
        yield pa.Table.from_batches(held)


def make_shards(final: Path, write: Callable[[Path, str], None]) -> None:
    """Make a folder of shards, which appears in one step; another run may be faster.

    Args:
        final: The folder, in `_rgpt` of the output folder.
        write: Is called with an empty folder to write to, and one for temporary files.

    Raises:
        ConfigError: The folder cannot be made.
    """
    staging = final.parent / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="joining-", dir=staging) as work:
        shards = Path(work, "shards")
        # mkdir obeys the umask; the temporary folder is closed to others.
        shards.mkdir()
        write(shards, work)
        # Another run of the same command may have been faster; its shards are the same.
        with suppress(OSError):
            shards.rename(final)
    if not final.is_dir():
        raise ConfigError(f"{final}: cannot be written. Check the permissions.")


def _starts(column: pa.Array, last: pa.Array | None) -> npt.NDArray[np.intp]:
    """Return the rows with another value than the row before; nulls are a value, too.

    Args:
        column: The values.
        last: The value before the first row; None where there is none.
    """
    if last is not None:
        column = pa.concat_arrays([last, column])
    here, before = column[1:], column[:-1]
    differs = pc.fill_null(pc.not_equal(here, before), False)
    changed = pc.or_(differs, pc.xor(pc.is_null(here), pc.is_null(before)))
    found = np.flatnonzero(changed.to_numpy(zero_copy_only=False))
    return found if last is not None else np.concatenate([[0], found + 1]).astype(np.intp)


def _close(writer: pq.ParquetWriter, path: Path) -> None:
    writer.close()
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
