"""Arrow files, such as the folders that `datasets.save_to_disk` writes; `datasets` is not needed.

That writes streams, and state.json lists them in order. Arrow's file format, which Feather uses,
is read as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from rgpt_batch.config.arguments import check_text
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.readers.relations import Kind, Table, find_common_columns
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.input.footers import READ_ERRORS, is_damage, read_error
from rgpt_batch.storage.selection import is_parquet_name

_FILE_MAGIC = b"ARROW1"


def find_arrow_files(folder: Path) -> list[str]:
    """Return the Arrow files of a folder in order; none in a folder of something else.

    Raises:
        ConfigError: The folder holds several splits, or Parquet as well.
        ShardError: Its state.json makes no sense.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(state.parent.name for state in folder.glob("*/state.json"))
        raise ConfigError(
            f"{folder}: holds the splits {', '.join(splits)}. Name the folder of one of them, such "
            f"as {folder / splits[0] if splits else folder / 'test'}."
        )
    if not (folder / "state.json").is_file():
        files = sorted(str(file) for file in folder.glob("*.arrow"))
        if files and (others := sorted(filter(is_parquet_name, os.listdir(folder)))):
            raise ConfigError(
                f"{folder}: holds {Path(files[0]).name} and {others[0]}, Arrow and Parquet. Name "
                "the files of one of them, or move them apart."
            )
        return files
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files = [str(folder / file["filename"]) for file in state["_data_files"]]
        has_indices = bool(state.get("_indices_data_files"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(
            f"{folder / 'state.json'}: not what datasets.save_to_disk writes ({error!r}). Save the "
            "data set again, or write it as Parquet."
        ) from error
    if has_indices:
        # Old versions of `datasets` kept shuffled or selected rows as indices beside the data.
        raise ShardError(
            f"{folder}: a selection of rows that is saved as indices. Call flatten_indices() and "
            "save the data set again."
        )
    return files


def open_arrow(path: str, files: Sequence[str], kind: Kind, spool: Spool) -> Table:
    """Write the needed columns of Arrow files to the spool.

    Raises:
        ShardError: A file is unreadable, or a column is missing or of a wrong type.
    """
    if not files:
        raise ShardError(f"{path}: the data set has no files. Save it again.")
    columns, kept = find_common_columns({file: _read_schema(file) for file in files}, kind)
    batches = (batch for file in files for batch in _read_batches(file, kept))
    spooled = spool.write_batches(batches, kept, path)
    return Table(origin=path, paths=(spooled,), columns=columns, schema=kept)


def _read_batches(file: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with _opened(file) as (_, batches):
        for batch in batches:
            columns = [
                batch[field.name]
                if field.name in batch.schema.names
                else pa.nulls(batch.num_rows, field.type)
                for field in schema
            ]
            yield pa.record_batch(columns, schema=schema)


def _read_schema(file: str) -> pa.Schema:
    with _opened(file) as (schema, _):
        # Names that are not UTF-8 show here.
        len(schema.names)
        return schema


@contextmanager
def _opened(file: str) -> Iterator[tuple[pa.Schema, Iterable[pa.RecordBatch]]]:
    check_text(file)
    try:
        with pa.OSFile(file) as source:
            is_stream = source.read(len(_FILE_MAGIC)) != _FILE_MAGIC
            source.seek(0)
            if is_stream:
                with pa.ipc.open_stream(source) as stream:
                    yield stream.schema, stream
            else:
                with pa.ipc.open_file(source) as reader:
                    yield reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    except READ_ERRORS as error:
        if not is_damage(error):
            raise read_error(file, error) from error
        raise ShardError(
            f"{file}: not a readable Arrow stream or file: {error}. Save "
            "the data set again, or write it as Parquet."
        ) from error
