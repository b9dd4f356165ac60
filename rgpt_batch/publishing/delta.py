"""Publishing to Delta Lake: one commit of the table's log.

The commit carries a transaction of an application (Delta's `txn`): its id names the job, its
version the state of the job's rows. Delta refuses the second of two commits with the same id, so
rows are never added twice. A publication that dies before its commit leaves files behind that no
version of the table names; VACUUM deletes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rgpt_batch.errors import CommitError, ConfigError, RgptBatchError
from rgpt_batch.publishing.publication import FINGERPRINT, Publication, Published
from rgpt_batch.publishing.tables import fitting_schema, table_errors
from rgpt_batch.storage.connections import client_settings
from rgpt_batch.storage.uris import resolved

_MAX_TRIES = 5
# A version has 64 bits, of which one is the sign.
_VERSION_DIGITS = 15


def publish_delta(rows: Publication, location: str, target_bytes: int) -> Published:
    """Make a table's rows of a job those of an output; the table is made where there is none.

    Args:
        rows: What to publish.
        location: The table's path or URI.
        target_bytes: Of a data file.

    Raises:
        ConfigError: deltalake is missing, or the table has other columns.
        ShardError, StorageError: The output cannot be read.
        CommitError: The table cannot be read or written.
    """
    try:
        from deltalake import (
            CommitProperties,
            DeltaTable,
            Transaction,
            WriterProperties,
            write_deltalake,
        )
        from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
    except ImportError as error:
        raise ConfigError(
            'publishing to Delta Lake needs deltalake: pip install "rgpt-batch[lake]"'
        ) from error
    place = resolved(location)
    options = client_settings(place)
    application = f"rgpt-batch:{rows.fingerprint}"
    state = int(rows.digest[:_VERSION_DIGITS], 16)
    commit: dict[str, Any] = {
        "custom_metadata": {"rgpt_batch": {"fingerprint": rows.fingerprint, "digest": rows.digest}},
        "app_transactions": [Transaction(application, state)],
    }
    for _ in range(_MAX_TRIES):
        commit.pop("max_commit_retries", None)
        schema, known = rows.schema, None
        with table_errors(location, (DeltaError, OSError, ValueError)):
            try:
                table = DeltaTable(place, storage_options=options)
            except TableNotFoundError:
                table = None
        if table is not None:
            there = pa.schema(table.schema().to_arrow())
            schema = fitting_schema(location, there, rows.schema)
            known = table.transaction_version(application)
            if known is not None and _files_of(table, rows.fingerprint):
                if known == state:
                    return Published(
                        change="unchanged", num_files=0, state=f"version {table.version()}"
                    )
            else:
                known = None
        stream = _Stream(rows, schema, target_bytes)
        arguments: dict[str, Any] = {
            "target_file_size": target_bytes,
            "writer_properties": WriterProperties(compression="ZSTD"),
            "storage_options": options,
        }
        if table is None:
            arguments |= {"mode": "error", "partition_by": list(rows.partitions) or None}
            # Of two that make a table, the slower one would try again as the second version, and
            # look for no conflict (deltalake 1.6): both would add their rows.
            commit["max_commit_retries"] = 0
        elif known is None:
            arguments |= {"mode": "append"}
        else:
            # The fingerprint is hexadecimal.
            predicate = f"{FINGERPRINT} = '{rows.fingerprint}'"
            arguments |= {"mode": "overwrite", "predicate": predicate}
        with table_errors(location, (DeltaError, OSError, ValueError)):
            try:
                write_deltalake(
                    table if table is not None else place,
                    stream.reader(),
                    commit_properties=CommitProperties(**commit),
                    **arguments,
                )
            except CommitFailedError:
                # Somebody else was faster, perhaps with the same rows.
                continue
            except DeltaError as error:
                if stream.failure is not None:
                    raise stream.failure from None
                if table is None and "already exists" in str(error):
                    continue
                raise
            table = DeltaTable(place, storage_options=options)
            return Published(
                change="published" if known is None else "replaced",
                num_files=_files_of(table, rows.fingerprint),
                state=f"version {table.version()}",
            )
    raise CommitError(
        f"{location}: other writers were faster {_MAX_TRIES} times. Nothing was published; run the "
        "same command again."
    )


class _Stream:
    """Rows for a library that repeats an error of ours as a text of its own.

    Attributes:
        failure: Our error, if there was one.
    """

    def __init__(self, rows: Publication, schema: pa.Schema, target_bytes: int) -> None:
        self.failure: RgptBatchError | None = None
        self._rows = rows
        self._schema = schema
        self._target_bytes = target_bytes

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for group in self._rows.groups(self._schema, self._target_bytes):
                yield from group.to_batches()
        except RgptBatchError as error:
            self.failure = error
            raise


def _files_of(table: Any, fingerprint: str) -> int:
    """Count the table's files that may hold rows of a job.

    None do where the rows were deleted, or where the table was restored to a state before them:
    transactions of applications outlive that.
    """
    actions = pa.table(table.get_add_actions(flatten=True))
    low, high = f"min.{FINGERPRINT}", f"max.{FINGERPRINT}"
    if not {low, high} <= set(actions.column_names):
        return int(actions.num_rows)
    is_outside = pc.or_(pc.greater(actions[low], fingerprint), pc.less(actions[high], fingerprint))
    return int(actions.num_rows - (pc.sum(pc.fill_null(is_outside, False)).as_py() or 0))
