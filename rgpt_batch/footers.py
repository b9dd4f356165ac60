"""Is the footer of a Parquet file to be believed?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.errors import ShardError

# What pyarrow raises for files that are no Parquet, or no longer.
READ_ERRORS = (OSError, pa.ArrowException, UnicodeDecodeError)


def check_footer(
    path: str, metadata: pq.FileMetaData, chunks: Sequence[Sequence[pq.ColumnChunkMetaData]]
) -> None:
    """Raise ShardError where a footer contradicts itself: it has no checksum that would tell.

    Believed, a damaged footer could cost rows, or give them another column's values.

    Args:
        path: The file.
        metadata: Its footer.
        chunks: The column chunks that the job reads, for every row group.
    """
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
