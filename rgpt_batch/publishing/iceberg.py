"""Publishing to Iceberg: one commit of the table in its catalog.

The commit deletes the rows of the job, where there are any, and adds files with the output's. The
deletion stands in every commit, so that Iceberg finds two publications of one job at the same time
to be in conflict: neither adds its rows a second time. The snapshot's summary says which state of
the job's rows it holds. A publication that dies before its commit leaves files behind that no
snapshot names; the removal of orphan files deletes them.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rgpt_batch.errors import CommitError, ConfigError
from rgpt_batch.publishing.files import parquet_files
from rgpt_batch.publishing.publication import FINGERPRINT, Publication, Published
from rgpt_batch.publishing.tables import fitting_schema, table_errors

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table, Transaction

_MAX_TRIES = 5
_FINGERPRINT_PROPERTY = "rgpt-batch.fingerprint"
_DIGEST_PROPERTY = "rgpt-batch.digest"


@dataclass(frozen=True, slots=True, kw_only=True)
class IcebergTable:
    """A table in a catalog.

    Attributes:
        catalog: Its name, by which pyiceberg finds its settings.
        identifier: Namespace and name.
        properties: Settings of the catalog beside those that pyiceberg finds.
    """

    catalog: str
    identifier: tuple[str, ...]
    properties: Mapping[str, str]

    def __str__(self) -> str:
        return ".".join((self.catalog, *self.identifier))


def publish_iceberg(rows: Publication, target: IcebergTable, target_bytes: int) -> Published:
    """Make a table's rows of a job those of an output; the table is made where there is none.

    Args:
        rows: What to publish.
        target: Where.
        target_bytes: Of a data file.

    Raises:
        ConfigError: pyiceberg is missing, there is no such catalog or namespace, or the table has
            other columns.
        ShardError, StorageError: The output cannot be read.
        CommitError: The table cannot be read or written.
    """
    try:
        from pyiceberg.exceptions import (
            CommitFailedException,
            NoSuchTableError,
            TableAlreadyExistsError,
            ValidationException,
        )
    except ImportError as error:
        raise ConfigError(
            'publishing to Iceberg needs pyiceberg: pip install "rgpt-batch[lake]"'
        ) from error
    with _errors(target):
        catalog = _open_catalog(target)
        for _ in range(_MAX_TRIES):
            try:
                table: Table | None = catalog.load_table(target.identifier)
            except NoSuchTableError:
                table = None
            known = None if table is None else _known_digest(table, rows.fingerprint)
            if table is not None and known == rows.digest:
                return Published(change="unchanged", num_files=0, state=_state(table))
            try:
                num_files = _commit(catalog, target, table, rows, target_bytes)
            except (CommitFailedException, ValidationException, TableAlreadyExistsError):
                # Somebody else was faster, perhaps with the same rows.
                continue
            return Published(
                change="published" if known is None else "replaced",
                num_files=num_files,
                state=_state(catalog.load_table(target.identifier)),
            )
    raise CommitError(
        f"{target}: other writers were faster {_MAX_TRIES} times. Nothing was published; run the "
        "same command again."
    )


def _commit(
    catalog: Catalog,
    target: IcebergTable,
    table: Table | None,
    rows: Publication,
    target_bytes: int,
) -> int:
    """Write data files and commit them; returns how many there are."""
    if table is None:
        schema = rows.schema
        transaction: Transaction = catalog.create_table_transaction(target.identifier, schema)
        with transaction.update_spec() as spec:
            for name in rows.partitions:
                spec.add_identity(name)
    else:
        schema = fitting_schema(str(target), table.schema().as_arrow(), rows.schema)
        transaction = table.transaction()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Delete operation did not match any records")
            transaction.delete(_rows_of(rows.fingerprint))
    paths = list(_write(transaction, rows, schema, target_bytes))
    transaction.add_files(
        paths,
        snapshot_properties={
            _FINGERPRINT_PROPERTY: rows.fingerprint,
            _DIGEST_PROPERTY: rows.digest,
        },
        check_duplicate_files=False,
    )
    transaction.commit_transaction()
    return len(paths)


def _write(
    transaction: Transaction, rows: Publication, schema: pa.Schema, target_bytes: int
) -> Iterator[str]:
    """Write the data files where the table's are, under names that no attempt shares."""
    folder = f"{transaction.table_metadata.location.rstrip('/')}/data"
    attempt = uuid.uuid4().hex[:12]
    groups = rows.groups(schema, target_bytes)
    for number, content in enumerate(parquet_files(groups, schema, target_bytes)):
        path = f"{folder}/{rows.fingerprint}-{attempt}-{number:05d}.parquet"
        # The table's own way to its files: a catalog may lend it credentials.
        with transaction._table.io.new_output(path).create() as stream:
            stream.write(content)  # type: ignore[arg-type]  # Any buffer will do.
        yield path


def _known_digest(table: Table, fingerprint: str) -> str | None:
    """Return which state of a job's rows a table holds; None where it holds none that we know of.

    Snapshots may have expired, rows may have been deleted, and the table may have been rolled back.
    """
    from pyiceberg.table.snapshots import ancestors_of

    if FINGERPRINT not in table.schema().column_names:
        return None
    for snapshot in ancestors_of(table.current_snapshot(), table.metadata):
        facts: Mapping[str, Any] = (
            snapshot.summary.additional_properties if snapshot.summary else {}
        )
        if facts.get(_FINGERPRINT_PROPERTY) == fingerprint:
            files = table.scan(row_filter=_rows_of(fingerprint)).plan_files()
            return facts.get(_DIGEST_PROPERTY) if any(True for _ in files) else None
    return None


def _open_catalog(target: IcebergTable) -> Catalog:
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchNamespaceError

    known = _settings(target)
    absent = {name: value for name, value in _from_environment().items() if name not in known}
    catalog = load_catalog(target.catalog, **{**absent, **target.properties})
    namespace = target.identifier[:-1]
    try:
        catalog.load_namespace_properties(namespace)
    except NoSuchNamespaceError:
        raise ConfigError(
            f"{target}: the catalog has no namespace {'.'.join(namespace)}. Make it: pyiceberg "
            f"--catalog {target.catalog} create namespace {'.'.join(namespace)}"
        ) from None
    return catalog


def _settings(target: IcebergTable) -> dict[str, str]:
    """Return a catalog's settings: those that pyiceberg finds, and those that were given."""
    from pyiceberg.utils.config import Config

    found = Config().get_catalog_config(target.catalog) or {}
    return {**{name: str(value) for name, value in found.items()}, **target.properties}


def _from_environment() -> dict[str, str]:
    """Return what all other commands read of the environment, and pyiceberg does not."""
    names = {
        "s3.endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "s3.region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    }
    return {
        setting: next(os.environ[name] for name in variables if name in os.environ)
        for setting, variables in names.items()
        if any(name in os.environ for name in variables)
    }


@contextmanager
def _errors(target: IcebergTable) -> Iterator[None]:
    """Turn whatever pyiceberg and the libraries below it raise into errors of ours.

    Messages of pyiceberg repeat a catalog's settings.
    """
    with table_errors(str(target), (Exception,), _settings(target)):
        yield


def _rows_of(fingerprint: str) -> str:
    """Return the filter of a job's rows; a fingerprint is hexadecimal."""
    return f"{FINGERPRINT} = '{fingerprint}'"


def _state(table: Table) -> str:
    snapshot = table.current_snapshot()
    return "no snapshot" if snapshot is None else f"snapshot {snapshot.snapshot_id}"
