"""Is the footer of a Parquet file to be believed?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.errors import ShardError, StorageError
from rgpt_batch.formatting import first_line
from rgpt_batch.storage.range_file import RangeFile

# What pyarrow raises for files that are no Parquet, or no longer.
READ_ERRORS = (OSError, pa.ArrowException, UnicodeDecodeError)


def is_damage(error: BaseException) -> bool:
    """Tell damaged bytes from a storage that fails, and from too little memory or too few threads.

    Arrow reports damaged bytes as an OSError without errno, or as one of the subclasses of
    ArrowException; a failing storage with errno; a lack of threads as ArrowException itself.
    """
    if isinstance(error, MemoryError | StorageError) or type(error) is pa.ArrowException:
        return False
    return getattr(error, "errno", None) is None


def read_error(path: str, error: Exception) -> ShardError | StorageError:
    """Say why a Parquet file of ours cannot be read, without advice in the case of damage.

    Returns:
        ShardError for damage; StorageError where the file may be as good as ever.
    """
    if isinstance(error, StorageError):
        return error
    reason = first_line(error).rstrip(".")
    if is_damage(error):
        return ShardError(f"{path}: not a readable Parquet file: {reason}.")
    return StorageError(
        f"{path}: cannot be read: {reason}. Nothing says that the file is damaged: check the "
        "storage, permissions and memory, then run the same command again."
    )


def input_error(path: str, error: Exception) -> ShardError | StorageError:
    """Say why a Parquet file of the input cannot be read, and in the case of damage what to do."""
    failure = read_error(path, error)
    if isinstance(failure, StorageError):
        return failure
    return ShardError(f"{failure} Write it again, or leave it out of the input.")


def check_column_chunks(path: str, metadata: pq.FileMetaData, columns: Sequence[str]) -> None:
    """Raise ShardError where a column chunk's metadata cannot be understood.

    Comes before `RowGroupMetaData.column`: that one (pyarrow 26) leaves the errors of the C++
    library uncaught, and ends the process where, say, size statistics contradict the schema. A
    reader that is to buffer ahead catches them; it looks at every column chunk before it asks for
    the first byte, so no page is read.

    Args:
        path: The file.
        metadata: Its footer.
        columns: The columns that the job reads.
    """
    was_asked = False

    def give_nothing(start: int, end: int) -> bytes:
        # The reader is through with the footer. It makes an error of this without a traceback,
        # whose text takes twice as long as all else here.
        nonlocal was_asked
        was_asked = True
        return b""

    try:
        # Large enough for whatever the footer says; nobody gets to see the content.
        file = pq.ParquetFile(RangeFile(2**62, give_nothing), metadata=metadata, pre_buffer=True)
        next(file.iter_batches(columns=list(columns), use_threads=False), None)
    except READ_ERRORS as error:
        if was_asked:
            return
        raise ShardError(
            f"{path}: the footer cannot be used: {error}. Write the file again, or leave it out of "
            "the input."
        ) from error


def check_footer(
    path: str, metadata: pq.FileMetaData, chunks: Sequence[Sequence[pq.ColumnChunkMetaData]]
) -> None:
    """Raise ShardError where a footer contradicts itself, or is about the rows of other files.

    Footers have no checksum. Believed, a damaged one could cost rows, or give them another
    column's values.

    Args:
        path: The file.
        metadata: Its footer.
        chunks: The column chunks that the job reads, for every row group.
    """
    for chunk in (chunk for row in chunks for chunk in row):
        if chunk.file_path and Path(chunk.file_path).name != path.rpartition("/")[2]:
            raise ShardError(
                f"{path}: a summary of a data set, whose rows are in other files, such as "
                f"{chunk.file_path}. Name these, or their folder."
            )
    try:
        problem = _contradiction(metadata, chunks)
    except UnicodeDecodeError as error:
        problem = f"a column's name is not UTF-8: {error}"
    if problem:
        raise ShardError(
            f"{path}: the footer is damaged: {problem}. Write the file again, or leave it out of "
            "the input."
        )


def _contradiction(
    metadata: pq.FileMetaData, chunks: Sequence[Sequence[pq.ColumnChunkMetaData]]
) -> str | None:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    if sum(group.num_rows for group in groups) != metadata.num_rows:
        return "the row groups' numbers of rows do not add up to the file's"
    leaves = {
        metadata.schema.column(index).path: metadata.schema.column(index)
        for index in range(metadata.num_columns)
    }
    extents = []
    for group, row in zip(groups, chunks, strict=True):
        for chunk in row:
            leaf = leaves.get(chunk.path_in_schema)
            is_flat = leaf is not None and leaf.max_repetition_level == 0
            if leaf is None or (is_flat and chunk.num_values != group.num_rows):
                return "a column's number of values is not its row group's number of rows"
            if chunk.num_values:
                # Some writers give 0 for no dictionary.
                first_byte = chunk.dictionary_page_offset or chunk.data_page_offset
                first_byte = min(first_byte, chunk.data_page_offset)
                extents.append((first_byte, first_byte + chunk.total_compressed_size))
    extents.sort()
    if any(end > start for (_, end), (start, _) in pairwise(extents)):
        return "two columns overlap"
    return None
