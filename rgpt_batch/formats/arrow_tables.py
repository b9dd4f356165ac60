"""Arrow streams, such as the folders that `datasets.save_to_disk` writes; `datasets` is not needed.

state.json of such a folder lists the files in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.formats.relations import Kind, Table, check_types, find_columns
from rgpt_batch.formats.spool import Spool


def find_arrow_files(folder: Path) -> list[str]:
    """Return the Arrow files of a folder in order; none in a folder of something else.

    Raises:
        ConfigError: The folder holds several splits.
        ShardError: Its state.json makes no sense.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(state.parent.name for state in folder.glob("*/state.json"))
        raise ConfigError(
            f"{folder}: holds the splits {', '.join(splits)}. Name the folder of one of them, such "
            f"as {folder / splits[0] if splits else folder / 'test'}."
        )
    if not (folder / "state.json").is_file():
        return sorted(str(file) for file in folder.glob("*.arrow"))
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
    """Write the needed columns of Arrow streams to the spool.

    Raises:
        ShardError: A file is unreadable, or a column is missing or of a wrong type.
    """
    if not files:
        raise ShardError(f"{path}: the data set has no files. Save it again.")
    with _reader(files[0]) as reader:
        schema = reader.schema
    columns = find_columns(schema.names, kind, files[0])
    check_types(schema, columns, files[0])
    kept = pa.schema([schema.field(name).remove_metadata() for name in columns.values()])
    batches = (batch for file in files for batch in _read_batches(file, kept))
    spooled = spool.write_batches(batches, kept, path)
    return Table(origin=path, paths=(spooled,), columns=columns)


def _read_batches(file: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with _reader(file) as reader:
        for name in schema.names:
            if name not in reader.schema.names or reader.schema.field(name).type != (
                wanted := schema.field(name).type
            ):
                raise ShardError(
                    f"{file}: no column '{name}' of type {wanted}, as the files before have it. "
                    "Save the data set again."
                )
        for batch in reader:
            yield pa.record_batch(batch.select(schema.names).columns, schema=schema)


@contextmanager
def _reader(file: str) -> Iterator[pa.RecordBatchReader]:
    try:
        with pa.OSFile(file) as stream, pa.ipc.open_stream(stream) as reader:
            yield reader
    except (OSError, pa.ArrowException) as error:
        raise ShardError(
            f"{file}: not a readable Arrow stream, as datasets.save_to_disk writes: {error}. Save "
            "the data set again, or write it as Parquet."
        ) from error
