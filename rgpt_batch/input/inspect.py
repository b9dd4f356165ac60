"""What the footers of the input files say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.parquet as pq

from rgpt_batch.config.options import InputConfig
from rgpt_batch.errors import ShardError
from rgpt_batch.input.columns import Columns, check_same_columns, resolve_columns
from rgpt_batch.input.footers import READ_ERRORS, check_column_chunks, check_footer, input_error
from rgpt_batch.records import Segment
from rgpt_batch.storage.files import local_path, open_version

_NUM_SHARD_ERRORS_SHOWN = 10
# The start of a process takes as long as 1,500 footers.
_FILES_PER_PROCESS = 4_000
# What is no store but takes this long for each of the first files is read like one.
_NUM_TRIED = 20
_SLOW_SECONDS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Size of one row group.

    Attributes:
        num_bytes: Uncompressed size of the columns that the job reads.
    """

    num_rows: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What the footer of one input file says.

    Attributes:
        version: Changes whenever the file does.
    """

    path: str
    version: str
    columns: Columns
    pass_through_types: tuple[str, ...]
    row_groups: tuple[RowGroup, ...]

    @property
    def num_rows(self) -> int:
        """How many rows the file holds."""
        return sum(group.num_rows for group in self.row_groups)

    @property
    def whole(self) -> Segment:
        """All rows of the file."""
        return Segment(path=self.path, version=self.version, first_row=0, num_rows=self.num_rows)


def inspect_shards(
    paths: Sequence[str],
    config: InputConfig,
    pass_through: Sequence[str],
    *,
    files_per_process: int = _FILES_PER_PROCESS,
) -> list[Shard]:
    """Read and check the footers of all shards.

    Args:
        paths: The files.
        config: How they are read.
        pass_through: Columns that are copied.
        files_per_process: How many files are worth a further process.

    Raises:
        ShardError: At least one shard cannot be used; the message names up to ten of them.
        StorageError: The storage fails.
    """
    if len(paths) < 2 * files_per_process:
        outcomes = inspect_each(paths, config, pass_through)
    else:
        from rgpt_batch.input.many_footers import inspect_in_processes

        outcomes = inspect_in_processes(paths, config, pass_through, files_per_process)
    errors = [outcome for outcome in outcomes if isinstance(outcome, ShardError)]
    shards = [outcome for outcome in outcomes if isinstance(outcome, Shard)]
    for shard in shards[1:]:
        try:
            check_same_columns(shards[0].columns, shard.columns, shards[0].path, shard.path)
            _check_same_types(shards[0], shard)
        except ShardError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        shown = "\n".join(f"  {error}" for error in errors[:_NUM_SHARD_ERRORS_SHOWN])
        raise ShardError(f"{len(errors)} of {len(paths)} shards cannot be used:\n{shown}")
    return shards


def inspect_each(
    paths: Sequence[str], config: InputConfig, pass_through: Sequence[str]
) -> list[Shard | ShardError]:
    """Read and check the footers of files, in this process.

    A disk gives a footer sooner than it is checked, and threads that wait for one another would
    double the work. Stores, and folders that only look like a disk, answer in some 50 ms, whatever
    is done here meanwhile.

    Raises:
        StorageError: The storage fails.
    """

    def inspect(path: str) -> Shard | ShardError:
        try:
            return inspect_shard(path, config, pass_through)
        except ShardError as error:
            return error

    started = time.perf_counter()
    num_tried = _NUM_TRIED if all(map(local_path, paths)) else 0
    first = [inspect(path) for path in paths[:num_tried]]
    rest = paths[num_tried:]
    if first and time.perf_counter() - started < len(first) * _SLOW_SECONDS:
        return [*first, *map(inspect, rest)]
    with ThreadPoolExecutor(max_workers=32) as pool:
        return [*first, *pool.map(inspect, rest)]


def inspect_shard(path: str, config: InputConfig, pass_through: Sequence[str]) -> Shard:
    """Read and check one footer.

    Raises:
        ShardError: The file is not readable Parquet or lacks usable columns.
        StorageError: It cannot be reached; nothing says that it is damaged.
    """
    try:
        version, source = open_version(path)
        with pq.ParquetFile(source) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except READ_ERRORS as error:
        raise input_error(path, error) from error
    columns = resolve_columns(schema, config.columns, pass_through, path)
    check_column_chunks(path, metadata, columns.read)
    # The leaves of a nested column `a` are named `a.…`; a plain column's name may hold dots too.
    prefixes = tuple(f"{name}." for name in columns.read)
    leaves = [
        index
        for index in range(metadata.num_columns)
        if f"{metadata.schema.column(index).path}.".startswith(prefixes)
    ]
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [[group.column(leaf) for leaf in leaves] for group in groups]
    check_footer(path, metadata, chunks)
    return Shard(
        path=path,
        version=version,
        columns=columns,
        pass_through_types=tuple(str(schema.field(name).type) for name in pass_through),
        row_groups=tuple(
            RowGroup(
                num_rows=group.num_rows,
                num_bytes=sum(chunk.total_uncompressed_size for chunk in row),
            )
            for group, row in zip(groups, chunks, strict=True)
        ),
    )


def _check_same_types(first: Shard, other: Shard) -> None:
    for name, wanted, found in zip(
        first.columns.pass_through, first.pass_through_types, other.pass_through_types, strict=True
    ):
        if wanted != found:
            raise ShardError(
                f"{other.path}: column '{name}' is {found}, but {wanted} in {first.path}. "
                "Cast one of them, or do not pass the column through."
            )
