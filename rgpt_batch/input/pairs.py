"""Parquet in: the rows of a unit, in bounded memory.

Texts become Python strings; ids and passed-through columns stay Arrow columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.errors import ShardError
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.footers import READ_ERRORS, input_error, is_damage
from rgpt_batch.records import Rejection, RejectionReason, ScorePair, Segment, WorkUnit
from rgpt_batch.storage.files import buffer_bytes, check_unchanged, open_at

_BATCH_ROWS = 1024
# A batch of long documents holds fewer rows: Arrow, Python and the tokenizer each hold it at once.
_BATCH_BYTES = 2 * 2**20
# Characters. Tokenising takes many times a text's size in memory, and one this long is no passage.
_MAX_TEXT_LENGTH = 16 * 2**20

SOURCE_FILE = "source_file"
SOURCE_ROW = "source_row"

# In shards whose rows were brought into another order: where each row came from, and whether it
# could not be read there.
ORIGIN_FILE = "_rgpt_source_file"
ORIGIN_ROW = "_rgpt_source_row"
ORIGIN_UNREADABLE = "_rgpt_unreadable"
ORIGIN = (ORIGIN_FILE, ORIGIN_ROW, ORIGIN_UNREADABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBatch:
    """Some consecutive rows of a unit.

    Attributes:
        columns: query_id and doc_id as strings, then what is passed through; num_rows rows.
        pairs: One entry per row.
    """

    columns: pa.RecordBatch
    pairs: list[ScorePair | Rejection]


def read_pairs(unit: WorkUnit, columns: Columns, *, source: bool) -> Iterator[PairBatch]:
    """Read the rows of a unit in input order.

    Rows that the file no longer gives because a page is damaged come as UNREADABLE with null ids,
    so that every input row keeps its output row.

    Args:
        unit: What to read.
        columns: The columns' names in the shards.
        source: Add the columns source_file and source_row.

    Raises:
        ShardError: A shard is gone, has changed since planning, or the storage fails.
    """
    for segment in unit.segments:
        for batch, first_row in read_segment(segment, columns.read):
            yield to_pair_batch(batch, columns, segment.path if source else None, first_row)


def read_segment(
    segment: Segment, names: Sequence[str]
) -> Iterator[tuple[pa.RecordBatch | Unreadable, int]]:
    """Yield batches with the index of their first row in the shard; errors as read_pairs.

    Args:
        segment: The rows.
        names: The columns. Those of ORIGIN come as well where the shard has them.
    """
    with _open(segment) as file:
        names = [*names, *(name for name in ORIGIN if name in file.schema_arrow.names)]
        schema = pa.schema([file.schema_arrow.field(name) for name in names])
        if segment.num_rows == 0:
            yield pa.RecordBatch.from_pylist([], schema=schema), segment.first_row
        group_start = 0
        for group in range(file.num_row_groups):
            group_end = group_start + file.metadata.row_group(group).num_rows
            low = max(segment.first_row, group_start)
            high = min(segment.first_row + segment.num_rows, group_end)
            if low < high:
                yield from _read_group(file, group, group_start, low, high, schema, segment.path)
            group_start = group_end
    try:
        # Overwritten in place, the open file gives other rows.
        check_unchanged(segment.path, segment.version)
    except OSError as error:
        raise _cannot_be_opened(segment, error) from error


def _read_group(
    file: pq.ParquetFile,
    group: int,
    group_start: int,
    low: int,
    high: int,
    schema: pa.Schema,
    path: str,
) -> Iterator[tuple[pa.RecordBatch | Unreadable, int]]:
    """Yield the rows low … high - 1, counted over the shard, of one row group."""
    position = group_start
    batches = file.iter_batches(
        _batch_rows(file.metadata.row_group(group)),
        row_groups=[group],
        columns=schema.names,
        # A thread that cannot be started ends the process (pyarrow 26).
        use_threads=False,
    )
    try:
        for batch in batches:
            start, end = max(low, position), min(high, position + batch.num_rows)
            if start < end:
                yield batch.select(schema.names).slice(start - position, end - start), start
            position += batch.num_rows
            if position >= high:
                return
    except MemoryError as error:
        # Hostile sizes, or too little memory: neither says that the rows are damaged.
        raise ShardError(
            f"{path}: not enough memory to read rows {max(low, position):,} to {high - 1:,}: "
            f"{error}. Give the worker more, or write the file with smaller values."
        ) from error
    except (OSError, pa.ArrowException) as error:
        if not is_damage(error):
            raise ShardError(
                f"{path}: reading failed: {error}. Check the storage, and the limits of the "
                "worker's process."
            ) from error
    # The reader gave fewer rows than the footer promises: the rest of this row group is lost.
    start = max(low, position)
    for first_row in range(start, high, _BATCH_ROWS):
        yield Unreadable(schema, min(_BATCH_ROWS, high - first_row)), first_row


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    rows_in_bytes: int = _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
    return max(1, min(_BATCH_ROWS, rows_in_bytes))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Rows that the file no longer gives."""

    schema: pa.Schema
    num_rows: int


def _open(segment: Segment) -> pq.ParquetFile:
    try:
        source = open_at(segment.path, segment.version)
        # Column chunks are streamed through a buffer; pre_buffer would read row groups whole.
        return pq.ParquetFile(
            source,
            buffer_size=buffer_bytes(segment.path),
            pre_buffer=False,
            page_checksum_verification=True,
        )
    except READ_ERRORS as error:
        raise _cannot_be_opened(segment, error) from error


def _cannot_be_opened(segment: Segment, error: Exception) -> ShardError:
    if isinstance(error, FileNotFoundError):
        return ShardError(
            f"{segment.path}: cannot be opened: {error}. Bring the file back, then run the same "
            "command again."
        )
    return ShardError(str(input_error(segment.path, error)))


def to_pair_batch(
    batch: pa.RecordBatch | Unreadable, columns: Columns, source: str | None, first_row: int
) -> PairBatch:
    """Turn rows into pairs; those that cannot be scored become rejections.

    Args:
        batch: With the columns that are read.
        columns: Their names.
        source: The file, for the columns source_file and source_row, unless the batch says where
            its rows came from; None leaves these out.
        first_row: Index of the batch's first row in the file.
    """
    pairs: list[ScorePair | Rejection]
    if isinstance(batch, Unreadable):
        pairs = [Rejection(reason=RejectionReason.UNREADABLE)] * batch.num_rows
        arrays = {field.name: pa.nulls(batch.num_rows, field.type) for field in batch.schema}
    else:
        arrays = {name: batch.column(name) for name in batch.schema.names}
        queries, documents = _texts(arrays[columns.query]), _texts(arrays[columns.document])
        pairs = [_to_pair(*texts) for texts in zip(queries, documents, strict=True)]
    query_ids, invalid_query_ids = _to_ids(arrays[columns.query_id])
    doc_ids, invalid_doc_ids = _to_ids(arrays[columns.doc_id])
    for row in invalid_query_ids | invalid_doc_ids:
        pairs[row] = Rejection(reason=RejectionReason.INVALID_TEXT)
    kept = {
        "query_id": query_ids,
        "doc_id": doc_ids,
        **{name: arrays[name] for name in columns.pass_through},
    }
    if ORIGIN_UNREADABLE in arrays:
        for row, unreadable in enumerate(arrays[ORIGIN_UNREADABLE].to_pylist()):
            if unreadable:
                pairs[row] = Rejection(reason=RejectionReason.UNREADABLE)
    if source is not None and ORIGIN_FILE in arrays:
        kept[SOURCE_FILE] = _plain(arrays[ORIGIN_FILE])
        kept[SOURCE_ROW] = arrays[ORIGIN_ROW]
    elif source is not None:
        kept[SOURCE_FILE] = pa.repeat(source, len(pairs))
        kept[SOURCE_ROW] = pa.array(range(first_row, first_row + len(pairs)), pa.int64())
    return PairBatch(columns=pa.RecordBatch.from_pydict(kept), pairs=pairs)


def _to_pair(query: str | bytes | None, document: str | bytes | None) -> ScorePair | Rejection:
    if query is None:
        return Rejection(reason=RejectionReason.NULL_QUERY)
    if document is None:
        return Rejection(reason=RejectionReason.NULL_DOCUMENT)
    if isinstance(query, bytes) or isinstance(document, bytes):
        return Rejection(reason=RejectionReason.INVALID_TEXT)
    if max(len(query), len(document)) > _MAX_TEXT_LENGTH:
        return Rejection(reason=RejectionReason.TEXT_TOO_LARGE)
    return ScorePair(query=query, document=document)


def _texts(column: pa.Array) -> Sequence[str | bytes | None]:
    """Return Python strings; bytes where a value is not valid UTF-8."""
    try:
        texts: list[str | bytes | None] = column.to_pylist()
    except UnicodeDecodeError:
        return [_decode(value) for value in _to_bytes(_plain(column))]
    return texts


def _to_ids(column: pa.Array) -> tuple[pa.Array, set[int]]:
    """Return ids as strings, and the rows where U+FFFD stands for bytes that are not UTF-8.

    Copied as they are, such bytes would make the output unreadable; replaced, two ids can become
    the same one. So these rows are rejected.
    """
    ids = _plain(column).cast(pa.string())
    try:
        ids.validate(full=True)
    except pa.ArrowInvalid:
        decoded = [_decode(value) for value in _to_bytes(ids)]
        invalid = {row for row, value in enumerate(decoded) if isinstance(value, bytes)}
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in decoded]
        return pa.array(texts, pa.string()), invalid
    return ids, set()


def _decode(value: bytes | None) -> str | bytes | None:
    if value is None:
        return None
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def _to_bytes(texts: pa.Array) -> list[bytes | None]:
    values: list[bytes | None] = texts.cast(
        pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary()
    ).to_pylist()
    return values


def as_bytes(texts: pa.Array) -> pa.Array:
    """Return texts or ids as bytes: not all need be valid text."""
    texts = _plain(texts)
    if pa.types.is_integer(texts.type):
        texts = texts.cast(pa.string())
    return texts.cast(pa.large_binary())


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
