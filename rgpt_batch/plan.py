"""From input paths to work units.

A plan depends on the shards' footers and on `units.*` alone, never on the cluster: the same job
resumes with the same units wherever it runs.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from rgpt_batch.columns import Columns, check_same_columns, resolve_columns
from rgpt_batch.config import InputConfig, UnitsConfig
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.files import find_remote_shards, open_version
from rgpt_batch.footers import READ_ERRORS, check_column_chunks, check_footer
from rgpt_batch.records import Segment, WorkUnit
from rgpt_batch.uris import is_uri

_NUM_SHARD_ERRORS_SHOWN = 10


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


def resolve_inputs(inputs: Sequence[str]) -> list[str]:
    """Expand files, folders and glob patterns, local or URIs, to absolute paths of shards.

    Folders are searched for *.parquet at any depth; names that start with `_` or `.` are left out,
    as Spark and Arrow do. Every file appears once, in the order of the arguments, then by name.

    Raises:
        ConfigError: An argument names nothing, or a folder cannot be listed.
    """
    paths: dict[Path | str, str] = {}
    for argument in inputs:
        try:
            if is_uri(argument):
                paths |= {uri: uri for uri in _find_remote_shards(argument)}
                continue
            for file in _find_shards(argument):
                paths.setdefault(file.resolve(), str(file.absolute()))
        except OSError as error:
            raise ConfigError(
                f"{argument}: cannot be listed: {error}. Check permissions."
            ) from error
    if not paths:
        raise ConfigError("no input: name at least one Parquet file, folder or pattern.")
    return list(paths.values())


def _find_shards(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _shards_below(path)
        if not found:
            raise ConfigError(f"{argument}: the folder holds no *.parquet file.")
    elif glob.has_magic(argument):
        matches = (Path(match) for match in sorted(glob.glob(argument, recursive=True)))
        found = [match for match in matches if match.is_file()]
        if not found:
            raise ConfigError(f"{argument}: no file matches the pattern.")
    else:
        raise ConfigError(f"{argument}: no such file or folder.")
    return found


def _find_remote_shards(argument: str) -> list[str]:
    found = find_remote_shards(argument)
    if not found:
        raise ConfigError(f"{argument}: no such object, folder with *.parquet objects, or match.")
    return found


def _shards_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        # Left to itself, os.walk passes over such a folder, and its rows would be missing.
        raise error

    shards: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name[0] not in "_."]
        shards += [
            Path(parent, name)
            for name in files
            if name.endswith(".parquet") and name[0] not in "_."
        ]
    return sorted(shards)


def inspect_shards(
    paths: Sequence[str], config: InputConfig, pass_through: Sequence[str]
) -> list[Shard]:
    """Read and check the footers of all shards.

    Raises:
        ShardError: At least one shard cannot be used; the message names up to ten of them.
    """

    def inspect(path: str) -> Shard | ShardError:
        try:
            return inspect_shard(path, config, pass_through)
        except ShardError as error:
            return error

    with ThreadPoolExecutor(max_workers=16) as pool:
        outcomes = list(pool.map(inspect, paths))
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


def inspect_shard(path: str, config: InputConfig, pass_through: Sequence[str]) -> Shard:
    """Read and check one footer.

    Raises:
        ShardError: The file is not readable Parquet or lacks usable columns.
    """
    try:
        version, source = open_version(path)
        with pq.ParquetFile(source) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except READ_ERRORS as error:
        raise ShardError(
            f"{path}: not a readable Parquet file ({_first_line(error)}). "
            "Write it again, or leave it out of the input."
        ) from error
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


def plan_units(shards: Sequence[Shard], config: UnitsConfig) -> list[WorkUnit]:
    """Cut the rows of all shards into units, in input order.

    Row groups above `max_rows` or `max_bytes` are split evenly; small ones are put together, across
    shards too. Every row is in exactly one unit. There is at least one unit, so that an input
    without rows still gives an output with a schema.
    """
    units: list[WorkUnit] = []
    pieces: list[_Piece] = []
    num_rows = num_bytes = 0
    for piece in _pieces(shards, config):
        full = (
            num_rows + piece.segment.num_rows > config.max_rows
            or num_bytes + piece.num_bytes > config.max_bytes
        )
        if pieces and full:
            units.append(_unit(len(units), pieces))
            pieces, num_rows, num_bytes = [], 0, 0
        pieces.append(piece)
        num_rows += piece.segment.num_rows
        num_bytes += piece.num_bytes
    if not pieces and not units:
        pieces = [_Piece(_segment(shards[0], 0, 0), 0)]
    if pieces:
        units.append(_unit(len(units), pieces))
    return units


@dataclass(frozen=True, slots=True)
class _Piece:
    segment: Segment
    num_bytes: int


def _pieces(shards: Iterable[Shard], config: UnitsConfig) -> Iterator[_Piece]:
    for shard in shards:
        first_row = 0
        for group in shard.row_groups:
            rows_in_bytes = config.max_bytes * group.num_rows // max(1, group.num_bytes)
            num_pieces = math.ceil(group.num_rows / max(1, min(config.max_rows, rows_in_bytes)))
            for index in range(num_pieces):
                low = group.num_rows * index // num_pieces
                high = group.num_rows * (index + 1) // num_pieces
                # All rows count alike; the pieces' bytes add up to the row group's.
                num_bytes = (
                    group.num_bytes * high // group.num_rows
                    - group.num_bytes * low // group.num_rows
                )
                yield _Piece(_segment(shard, first_row + low, high - low), num_bytes)
            first_row += group.num_rows


def _segment(shard: Shard, first_row: int, num_rows: int) -> Segment:
    return Segment(path=shard.path, version=shard.version, first_row=first_row, num_rows=num_rows)


def _unit(index: int, pieces: Sequence[_Piece]) -> WorkUnit:
    segments: list[Segment] = []
    for segment in (piece.segment for piece in pieces):
        last = segments[-1] if segments else None
        # Pieces come in order and without gaps, so those of one shard are one run of rows.
        if last and last.path == segment.path:
            segments[-1] = replace(last, num_rows=last.num_rows + segment.num_rows)
        else:
            segments.append(segment)
    return WorkUnit(
        unit_id=f"{index:06d}",
        segments=tuple(segments),
        num_bytes=sum(piece.num_bytes for piece in pieces),
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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
