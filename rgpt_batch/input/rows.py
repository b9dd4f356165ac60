"""Columns of Parquet files, wherever they are: as tables, and for DuckDB."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.database import quote_text
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.input.footers import READ_ERRORS, is_damage, read_error
from rgpt_batch.storage.files import local_path, open_source

# A batch ends where one of the two is reached: so many long texts may be more than memory holds.
_BATCH_ROWS = 65_536
_BATCH_BYTES = 16 * 2**20
# What DuckDB 1.5 decompresses; Hadoop's LZ4, an older one, is no part of it.
_DUCKDB_CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4_RAW")


def read_schema(file: str) -> pa.Schema:
    """Read the columns of a Parquet file.

    Raises:
        ShardError: The file is not readable Parquet.
        StorageError: The storage fails.
    """
    try:
        schema = pq.read_schema(open_source(file))
        # Names that are not UTF-8 show here.
        len(schema.names)
    except (*READ_ERRORS, MemoryError) as error:
        raise read_error(file, error) from error
    return schema


def read_schemas(files: Sequence[str]) -> dict[str, pa.Schema]:
    """Read the columns of Parquet files, several at a time; errors as read_schema."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return dict(zip(files, pool.map(read_schema, files), strict=True))


def read_rows(
    files: Sequence[str], schema: pa.Schema, *, may_lack: bool = False
) -> Iterator[pa.Table]:
    """Read columns of Parquet files, some rows at a time.

    Args:
        files: What to read.
        schema: Which columns, and what to cast them to.
        may_lack: Give nulls for a column that a file lacks.

    Raises:
        ShardError: A file is damaged, or its columns do not fit the schema.
        StorageError: The storage fails.
    """
    for file in files:
        try:
            with pq.ParquetFile(open_source(file)) as shard:
                for batch in shard.iter_batches(_batch_rows(shard.metadata), columns=schema.names):
                    yield _select(pa.Table.from_batches([batch]), schema, may_lack).cast(schema)
        except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
            if not is_damage(error):
                raise read_error(file, error) from error
            raise ShardError(f"{file}: its columns cannot be read: {error}") from error


def database_source(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    files: Sequence[str],
    schema: pa.Schema,
    *,
    may_lack: bool = False,
) -> str:
    """Return the SQL that stands for the rows of Parquet files in a FROM clause.

    DuckDB reads local files where they are. Others it could read with an extension alone, which it
    would have to download, with its own settings and without our retries; and there are local ones
    that it cannot read. Their columns are copied to a Parquet file in the folder that the database
    spills to, and that goes away with it.

    Args:
        connection: Of database.open_database.
        name: What to call the copy, if one is needed; each has a name of its own.
        files: What to read.
        schema: The columns to copy.
        may_lack: Give nulls for a column that a file lacks.

    Raises:
        ShardError, StorageError: See read_rows.
        ConfigError: There is no room for the copy.
    """
    local = [file for file in files if local_path(file)]
    direct = _readable(connection, local, schema) if local else []
    readable = set(direct)
    if others := [file for file in files if file not in readable]:
        direct.append(_copy(connection, name, others, schema, may_lack))
    by_name = "true" if may_lack else "false"
    return f"read_parquet({_listed(direct)}, hive_partitioning = false, union_by_name = {by_name})"


def _readable(
    connection: duckdb.DuckDBPyConnection, files: Sequence[str], schema: pa.Schema
) -> list[str]:
    """Return the local files whose columns DuckDB can read, by what their footers say."""
    columns = ", ".join(map(quote_text, schema.names))
    found = connection.execute(
        f"SELECT DISTINCT file_name FROM parquet_metadata({_listed(files)}) "
        f"WHERE path_in_schema IN ({columns}) AND (compression NOT IN {_DUCKDB_CODECS} OR "
        "encodings LIKE '%BYTE_STREAM_SPLIT%' AND type NOT IN ('FLOAT', 'DOUBLE'))"
    )
    unreadable = {name for (name,) in found.fetchall()}
    return [file for file in files if file not in unreadable]


def _listed(files: Sequence[str]) -> str:
    # Neither a * in a path nor a folder named text=1 may mean anything to DuckDB.
    return f"[{', '.join(quote_text(glob.escape(file)) for file in files)}]"


def _copy(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    files: Sequence[str],
    schema: pa.Schema,
    may_lack: bool,
) -> str:
    """Write columns of files to one that DuckDB can read; returns its path."""
    folder: str = connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
    copy = Path(folder, f"{name}.parquet")
    with _writing(folder):
        writer = pq.ParquetWriter(copy, schema, compression="zstd", compression_level=1)
    with writer:
        for rows in read_rows(files, schema, may_lack=may_lack):
            with _writing(folder):
                writer.write_table(rows)
        with _writing(folder):
            writer.close()
    return str(copy)


@contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Tell a lack of room here from errors of what is read."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot hold a copy of what is read: {error.strerror or error}. Make room, "
            "or set --temp-folder to a folder on a disk with room."
        ) from error


def _batch_rows(metadata: pq.FileMetaData) -> int:
    num_bytes = sum(
        metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)
    )
    rows_in_bytes: int = _BATCH_BYTES * metadata.num_rows // max(1, num_bytes)
    return max(1, min(_BATCH_ROWS, rows_in_bytes))


def _select(rows: pa.Table, schema: pa.Schema, may_lack: bool) -> pa.Table:
    if may_lack:
        for field in schema:
            if field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names)
