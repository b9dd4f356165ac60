"""Scored rows back in input order.

score     units of clustered rows → _rgpt/scored/part-*.parquet, each row with its file and index
restore   sorted out of core, cut as the input is → part-*.parquet, one atomic step for each

Both kinds of files are commit records: a job that was killed scores the units that are missing in
the first folder, then writes those that are missing in the second. The first one stays when the job
is done, so that a file that is lost can be written again without scoring; deleting _rgpt/scored
then does no other harm.
"""

from __future__ import annotations

import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rgpt_batch.errors import ManifestMismatch, ShardError
from rgpt_batch.importing.sort import Keys, sort_rows
from rgpt_batch.input.footers import READ_ERRORS, read_error
from rgpt_batch.input.pairs import SOURCE_FILE, SOURCE_ROW
from rgpt_batch.output import Store, open_store
from rgpt_batch.output.listing import CommittedFile
from rgpt_batch.output.score_file import Footer, read_footer, serialize
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import WorkUnit

_POSITION = "_rgpt_position"
_READ_ROWS = 2**14
_AGAIN = "Delete it and run the same command again."


def scored_store(store: Store, manifest: Manifest) -> Store:
    """Return where the units that are scored are committed."""
    return open_store(f"{store.location}/_rgpt/scored") if manifest.clustered else store


def unscored(
    store: Store, manifest: Manifest, files: Mapping[str, CommittedFile] | None = None
) -> list[WorkUnit]:
    """Return the units that remain to be scored; none where the output is there.

    Args:
        store: The output folder.
        manifest: The plan.
        files: What is committed there, where that was just listed.
    """
    committed = store.committed() if files is None else files
    if all(unit.unit_id in committed for unit in manifest.units):
        return []
    scored = scored_store(store, manifest).committed() if manifest.clustered else committed
    return [unit for unit in manifest.scored_units if unit.unit_id not in scored]


def restore(store: Store, manifest: Manifest, memory_gib: float) -> None:
    """Write the files of the output that are missing, from scored units that are all there.

    Raises:
        ShardError: A file of scores is damaged, or of another job.
        ConfigError: Memory or disk are too small.
        CommitError: A file cannot be published.
    """
    committed = store.committed()
    missing = {unit.unit_id for unit in manifest.units} - committed.keys()
    if not manifest.clustered or not missing:
        return
    files = scored_store(store, manifest).committed()
    paths = [files[unit.unit_id].path for unit in manifest.clustered]
    footers = [
        _checked(path, unit, manifest) for path, unit in zip(paths, manifest.clustered, strict=True)
    ]
    schema = pq.read_schema(paths[0]).remove_metadata()
    staging = Path(store.location, "_rgpt", "staging")
    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ordering-", dir=staging) as work:
        rows = sort_rows(
            _positioned(paths, schema, manifest),
            schema.append(pa.field(_POSITION, pa.uint64())),
            key_bits=manifest.num_rows.bit_length(),
            memory_gib=memory_gib,
            folder=work,
            remedy="Raise input.join_memory_gib, or make room where the output folder is.",
        )
        for unit, table in zip(manifest.units, _cut(rows, manifest.units, schema), strict=True):
            if unit.unit_id in missing:
                _commit(store, unit, table, manifest, footers[0])


def _checked(path: str, unit: WorkUnit, manifest: Manifest) -> Footer:
    try:
        footer, metadata = read_footer(path)
    except (ShardError, ManifestMismatch) as error:
        raise ShardError(f"{error} {_AGAIN}") from error
    same = (footer.fingerprint, footer.unit_id) == (manifest.fingerprint, unit.unit_id)
    if not same or metadata.num_rows != unit.num_rows:
        raise ShardError(f"{path}: belongs to another job, or lacks rows. {_AGAIN}")
    return footer


def _positioned(
    paths: Sequence[str], schema: pa.Schema, manifest: Manifest
) -> Iterator[tuple[Keys, pa.RecordBatch]]:
    """Yield scored rows by their place in the input, which stands in a column, too."""
    first_rows: dict[str, int] = {}
    position = 0
    for segment in (segment for unit in manifest.units for segment in unit.segments):
        first_rows.setdefault(segment.path, position - segment.first_row)
        position += segment.num_rows
    shards = pa.array(list(first_rows), pa.string())
    offsets = pa.array(list(first_rows.values()), pa.int64())
    for path in paths:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(_READ_ROWS, use_threads=False):
                    found = pc.index_in(batch[SOURCE_FILE], shards)
                    places = pc.add(offsets.take(found), batch[SOURCE_ROW]).cast(pa.uint64())
                    columns = [batch[name] for name in schema.names]
                    names = [*schema.names, _POSITION]
                    rows = pa.record_batch([*columns, places], names=names)
                    yield places.to_numpy(), rows
        except READ_ERRORS as error:
            raise ShardError(f"{read_error(path, error)} {_AGAIN}") from error


def _cut(
    rows: Iterator[pa.RecordBatch], units: Sequence[WorkUnit], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Cut sorted rows into units, and make sure that each row of the input is there once."""
    held: list[pa.RecordBatch] = []
    num_held = position = 0
    waiting = iter(units)
    unit = next(waiting)
    for batch in rows:
        expected = np.arange(position, position + batch.num_rows)
        if not np.array_equal(batch[_POSITION].to_numpy(zero_copy_only=False), expected):
            raise ShardError(
                f"the scored rows around row {position:,} of the input are not there once each. "
                "Delete _rgpt/scored in the output folder, and run the same command again."
            )
        position += batch.num_rows
        batch = batch.drop_columns([_POSITION])
        while num_held + batch.num_rows >= unit.num_rows:
            need = unit.num_rows - num_held
            yield pa.Table.from_batches([*held, batch.slice(0, need)], schema)
            batch, held, num_held = batch.slice(need), [], 0
            following = next(waiting, None)
            if following is None:
                break
            unit = following
        if batch.num_rows:
            held.append(batch)
            num_held += batch.num_rows
    # Units without rows.
    for _ in range(len(units) if not position else 0):
        yield schema.empty_table()


def _commit(
    store: Store, unit: WorkUnit, table: pa.Table, manifest: Manifest, scored: Footer
) -> None:
    reasons = table["rejection"].drop_null().to_pylist()
    attempt = uuid.uuid4().hex
    if not manifest.identity.written.source:
        table = table.drop_columns([SOURCE_FILE, SOURCE_ROW])
    footer = scored.model_copy(
        update={
            "unit_id": unit.unit_id,
            "attempt": attempt,
            "num_rows": table.num_rows,
            "num_rejected": dict(Counter(reasons)),
            "num_reused": 0,
        }
    )
    store.commit(unit.unit_id, attempt, serialize(table, footer))
