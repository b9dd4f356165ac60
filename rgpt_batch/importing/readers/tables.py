"""Tables of queries, documents and pairs, in whatever file they come.

    Parquet              a file, a folder or a glob pattern, in object stores as well; an output
    Arrow                a folder of `datasets.save_to_disk`, or an .arrow file
    JSON Lines           .jsonl, .ndjson, .json: one object per line
    tab-separated        .tsv, .txt: with a header, or an id and a text without one

Text files may be compressed with gzip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.readers.arrow import find_arrow_files, open_arrow
from rgpt_batch.importing.readers.relations import Kind, Table, find_common_columns
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.text import open_json_lines, open_tab_separated
from rgpt_batch.input.rows import read_schemas
from rgpt_batch.output.scored_files import find_files, is_parquet
from rgpt_batch.storage.selection import SUFFIXES, is_parquet_name

_JSON_LINES = (".jsonl", ".ndjson", ".json")
_TAB_SEPARATED = (".tsv", ".txt")


def open_table(path: Location, kind: Kind, spool: Spool) -> Table:
    """Find a table's columns by their usual names; write it to the spool unless it is Parquet.

    Raises:
        ConfigError: The path names nothing, or a file of unknown format.
        ShardError: A file is unreadable or malformed, or lacks a column.
    """
    path = as_location(path, kind.noun)
    if Path(path).is_dir() and (files := find_arrow_files(Path(path))):
        return open_arrow(path, files, kind, spool)
    if not Path(path).is_file():
        return open_parquet([path], kind)
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    if suffix == ".arrow":
        return open_arrow(path, [path], kind, spool)
    if suffix in _JSON_LINES:
        return open_json_lines(path, kind, spool)
    if suffix in _TAB_SEPARATED:
        return open_tab_separated(path, kind, spool)
    if is_parquet_name(path) or is_parquet(path):
        return open_parquet([path], kind)
    known = ", ".join((*SUFFIXES, ".arrow", *_JSON_LINES, *_TAB_SEPARATED))
    raise ConfigError(
        f"{path}: the name of a {kind.noun} must end in one of {known}, text files also in .gz. "
        "Rename or convert the file."
    )


def open_parquet(given: Sequence[str], kind: Kind) -> Table:
    """Find the columns of Parquet files, folders or glob patterns by their usual names.

    Raises:
        ConfigError: The path names nothing.
        ShardError: A file is damaged, or lacks a column.
        StorageError: A file cannot be reached.
    """
    paths = find_files(given)
    try:
        schemas = read_schemas(paths)
    except ShardError as error:
        raise ShardError(
            f"{error} Write it again, or leave it out of the input. Files of another format are "
            "read one by one, from this machine."
        ) from error
    columns, schema = find_common_columns(schemas, kind)
    origin = given[0] if len(given) == 1 else f"{given[0]} and {len(given) - 1} more"
    return Table(origin=origin, paths=tuple(paths), columns=columns, schema=schema)
