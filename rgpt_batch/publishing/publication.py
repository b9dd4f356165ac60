"""What is published: the rows of a complete output, with the columns that a table adds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.input.footers import READ_ERRORS, read_error
from rgpt_batch.input.rows import read_schemas
from rgpt_batch.output import Store
from rgpt_batch.output.success import Success
from rgpt_batch.storage.files import open_stream

FINGERPRINT = "fingerprint"

# A row group ends where one of the two is reached.
_GROUP_ROWS = 131_072
_GROUP_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of a table.

    Attributes:
        change: unchanged where the table held these rows already; replaced where it held an earlier
            state of the job's.
        num_files: That were added.
        state: The table's state, as its format names it.
    """

    change: Literal["published", "replaced", "unchanged"]
    num_files: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The rows of a complete output.

    Attributes:
        location: Of the output.
        partitions: Columns with one value for all rows, by which the table is partitioned.
        schema: Of all columns of the table; partitions and fingerprint are the last ones.
    """

    location: str
    success: Success
    partitions: Mapping[str, str]
    schema: pa.Schema

    @property
    def fingerprint(self) -> str:
        """Which job's rows these are."""
        return self.success.fingerprint

    @property
    def digest(self) -> str:
        """Which state of the job's rows this is: differs with any file or partition value."""
        files = sorted((file.name, file.sha256) for file in self.success.files.values())
        text = json.dumps([self.fingerprint, files, sorted(self.partitions.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def own_schema(self) -> pa.Schema:
        """Of the columns that the output's files have."""
        names = {*self.partitions, FINGERPRINT}
        return pa.schema([field for field in self.schema if field.name not in names])

    def groups(self, schema: pa.Schema, target_bytes: int) -> Iterator[pa.Table]:
        """Yield the rows, in the output's order, as many at a time as make a row group.

        Args:
            schema: Which columns, in which order.
            target_bytes: Of a file; a row group is no larger.

        Raises:
            ShardError: A file is not the one that _SUCCESS names.
            StorageError: The storage fails.
        """
        most_bytes = min(_GROUP_BYTES, target_bytes)
        waiting: list[pa.Table] = []
        for table in self._tables(schema):
            waiting.append(table)
            num_rows = sum(part.num_rows for part in waiting)
            if num_rows >= _GROUP_ROWS or sum(part.nbytes for part in waiting) >= most_bytes:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting).combine_chunks()

    def _tables(self, schema: pa.Schema) -> Iterator[pa.Table]:
        constants = {**self.partitions, FINGERPRINT: self.fingerprint}
        own = self.own_schema
        for unit_id in sorted(self.success.files):
            file = self.success.files[unit_id]
            path = f"{self.location}/{file.name}"
            num_rows = 0
            for batch in _batches(path, file.sha256):
                num_rows += batch.num_rows
                table = pa.Table.from_batches([batch]).select(own.names).cast(own)
                for name, value in constants.items():
                    table = table.append_column(name, pa.repeat(pa.scalar(value), batch.num_rows))
                yield table.select(schema.names).cast(schema)
            if num_rows != file.num_rows:
                raise ShardError(
                    f"{path}: {num_rows:,} rows, its _SUCCESS says {file.num_rows:,}. Run "
                    "`rgpt-batch verify`; nothing was published."
                )


def read_publication(store: Store, partitions: Mapping[str, str]) -> Publication:
    """Find the rows of an output folder.

    Args:
        store: The folder.
        partitions: Columns to add, and their value.

    Raises:
        ConfigError: The output is not complete, or a partition cannot be added.
        ShardError, StorageError: A file cannot be read.
    """
    listing = store.listing()
    if listing.success is None:
        raise ConfigError(
            f"{store.location}: {listing.problem}. Only complete outputs are published: run its "
            "job again."
        )
    files = [file.path for file in listing.files.values()]
    schema = _common_schema(store.location, list(read_schemas(files).values()))
    for name in (*partitions, FINGERPRINT):
        if name in schema.names:
            raise ConfigError(
                f"{store.location}: the output has a column {name} already. "
                + (
                    "Name the partition otherwise."
                    if name in partitions
                    else "Publishing adds one of that name: score without passing it through."
                )
            )
        schema = schema.append(pa.field(name, pa.string()))
    return Publication(
        location=store.location, success=listing.success, partitions=partitions, schema=schema
    )


def _common_schema(location: str, schemas: list[pa.Schema]) -> pa.Schema:
    """Return the columns of all files; passed-through ones may differ from file to file."""
    plain = [
        pa.schema([pa.field(field.name, _plain(field.type)) for field in schema])
        for schema in schemas
    ]
    try:
        return pa.unify_schemas(plain, promote_options="permissive")
    except pa.ArrowException as error:
        raise ConfigError(
            f"{location}: a passed-through column has types that have none in common: {error}."
        ) from error


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values where a type says how they are stored as well."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _batches(path: str, sha256: str) -> Iterator[pa.RecordBatch]:
    """Read an output file, if it is the one that _SUCCESS names: a damaged one is not published."""
    try:
        with open_stream(path) as stream:
            content = stream.read()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ShardError(
                f"{path}: its bytes are not those that its _SUCCESS names. Run "
                "`rgpt-batch verify`; nothing was published."
            )
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            yield from file.iter_batches()
    except (*READ_ERRORS, MemoryError) as error:
        raise read_error(path, error) from error
