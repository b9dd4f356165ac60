"""Rows in another order, in bounded memory, however many and long they are.

run       as many rows as a quarter of the memory holds, sorted by their keys
bucket    the pieces of all runs whose keys have the same leading bits, in one file on disk
sort      bucket by bucket; one that is too large is treated like the whole, by further bits

Why not ORDER BY: where rows hold texts, DuckDB 1.5 needs memory that grows with the input. With
0.5 GiB it sorts 400 MB of rows of 4 kB and gives up at 1,200 MB; with 1 GiB, at 3,000 MB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rgpt_batch.errors import ConfigError

Keys = npt.NDArray[np.uint64]

_BITS = 8
_BATCH_ROWS = 2048
# Arrays of texts hold 2 GiB at most.
_MAX_RUN_BYTES = 2**29
_KEY = "_rgpt_key"


def check_sortable(schema: pa.Schema) -> None:
    """Raise ConfigError where a column is of a type whose values cannot be put in another order."""
    for column in schema:
        try:
            packed = pa.nulls(1, _packed(column.type)).take(pa.array([0]))
            _unpack(packed, column.type)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid, TypeError) as error:
            raise ConfigError(
                f"output.pass_through: column '{column.name}' is {column.type}, which cannot be "
                "carried into another order of rows. Cast it, leave it out, or use --order input."
            ) from error


def sort_rows(
    rows: Iterable[tuple[Keys, pa.RecordBatch]],
    schema: pa.Schema,
    *,
    key_bits: int,
    memory_gib: float,
    folder: str,
    remedy: str,
) -> Iterator[pa.RecordBatch]:
    """Yield rows by their keys, in small batches; rows with equal keys stay in the order they had.

    Args:
        rows: The rows, and a key for each; read once.
        schema: Theirs; see check_sortable.
        key_bits: Keys are below 2 to this power.
        memory_gib: What may be held in memory.
        folder: Where rows are put that do not fit; up to twice their size.
        remedy: What an error says about a lack of disk.

    Raises:
        ConfigError: The disk is too small.
    """
    packed = pa.schema([*((f.name, _packed(f.type)) for f in schema), (_KEY, pa.uint64())])
    run_bytes = min(int(memory_gib * 2**28), _MAX_RUN_BYTES)
    with_keys = (
        pa.record_batch(
            [*(batch[name].cast(packed.field(name).type) for name in schema.names), keys],
            schema=packed,
        )
        for keys, batch in rows
    )
    for batch in _Sort(packed, run_bytes, folder, remedy).sorted(with_keys, key_bits):
        columns = [_unpack(batch[column.name], column.type) for column in schema]
        yield pa.record_batch(columns, schema=schema)


@dataclass(slots=True)
class _Bucket:
    """Where a bucket's pieces stand in the file, how large they are in memory, and some keys."""

    num_bytes: int = 0
    pieces: list[tuple[int, int]] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)

    def add(self, piece: pa.Table, place: tuple[int, int]) -> None:
        """Note one more piece; of its keys, which are sorted, the first and the last."""
        self.num_bytes += piece.nbytes
        self.pieces.append(place)
        if len(self.keys) < 2:
            self.keys |= {piece[_KEY][0].as_py(), piece[_KEY][-1].as_py()}


@dataclass(frozen=True, slots=True)
class _Sort:
    schema: pa.Schema
    run_bytes: int
    folder: str
    remedy: str

    def sorted(self, batches: Iterable[pa.RecordBatch], bits: int) -> Iterator[pa.RecordBatch]:
        """Yield rows by the last bits of their keys; all others are the same."""
        runs = self._runs(batches)
        first = next(runs, None)
        second = None if first is None else next(runs, None)
        if first is None:
            return
        if second is None:
            yield from first.to_batches(max_chunksize=_BATCH_ROWS)
            return
        shift = max(0, bits - _BITS)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            buckets: dict[int, _Bucket] = {}
            self._spill(first, shift, file, buckets)
            self._spill(second, shift, file, buckets)
            del first, second
            for run in runs:
                self._spill(run, shift, file, buckets)
            for number in sorted(buckets):
                bucket = buckets[number]
                pieces = self._read(file, bucket)
                if bucket.num_bytes <= self.run_bytes:
                    whole = _by_key(pa.Table.from_batches(list(pieces), self.schema))
                    yield from whole.to_batches(max_chunksize=_BATCH_ROWS)
                elif len(bucket.keys) > 1:
                    yield from self.sorted(pieces, shift)
                else:
                    # The rows of one document, which may be more than memory holds.
                    yield from pieces

    def _runs(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
        held: list[pa.RecordBatch] = []
        num_bytes = 0
        for batch in batches:
            held.append(batch)
            num_bytes += batch.nbytes
            if num_bytes >= self.run_bytes:
                run = _by_key(pa.Table.from_batches(held))
                held, num_bytes = [], 0
                yield run
        if held:
            yield _by_key(pa.Table.from_batches(held))

    def _spill(
        self, run: pa.Table, shift: int, file: BinaryIO, buckets: dict[int, _Bucket]
    ) -> None:
        """Write the pieces of a sorted run."""
        numbers = run[_KEY].to_numpy() >> np.uint64(shift)
        starts = np.concatenate([[0], np.flatnonzero(numbers[1:] != numbers[:-1]) + 1])
        for low, high in zip(starts, [*starts[1:], run.num_rows], strict=True):
            piece = run.slice(low, high - low).combine_chunks()
            content = pa.BufferOutputStream()
            with pa.ipc.new_stream(content, self.schema) as writer:
                writer.write_table(piece)
            buffer = content.getvalue()
            try:
                place = (file.tell(), file.write(memoryview(buffer)))
            except OSError as error:
                raise ConfigError(
                    f"{self.folder}: cannot hold rows that are sorted: {error.strerror}. "
                    f"{self.remedy}"
                ) from error
            buckets.setdefault(int(numbers[low]), _Bucket()).add(piece, place)

    def _read(self, file: BinaryIO, bucket: _Bucket) -> Iterator[pa.RecordBatch]:
        for offset, num_bytes in bucket.pieces:
            file.seek(offset)
            with pa.ipc.open_stream(file.read(num_bytes)) as reader:
                yield from reader


def _by_key(rows: pa.Table) -> pa.Table:
    order = np.argsort(rows[_KEY].to_numpy(), kind="stable")
    # Taking from one chunk is many times as fast as from a hundred.
    return rows.combine_chunks().take(pa.array(order)).combine_chunks()


def _packed(given: pa.DataType) -> pa.DataType:
    """Return the type as which a column is carried: dictionaries differ from batch to batch."""
    if pa.types.is_dictionary(given):
        return _packed(given.value_type)
    # Views have no kernel that takes rows (pyarrow 26).
    if pa.types.is_string_view(given):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(given) else given


def _unpack(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(wanted):
        return _unpack(column, wanted.value_type).dictionary_encode().cast(wanted)
    # Bytes that are no valid text stay as they are.
    return column if column.type == wanted else column.cast(wanted, safe=False)
