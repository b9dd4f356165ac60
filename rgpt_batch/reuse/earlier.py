"""Scores of an earlier output for a new job: which may be reused, and the index to find them by.

A score may be reused where everything that decides it is the same: the texts of the pair, which
its hash stands for, and the settings in Identity.scoring. Ids, files and columns
may differ. Rejections are cheap to repeat, and some depend on more than the texts, so they are.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rgpt_batch.database import open_database
from rgpt_batch.errors import ConfigError, ManifestMismatch, RgptBatchError, ShardError
from rgpt_batch.input.footers import read_error
from rgpt_batch.output import Store, open_store
from rgpt_batch.output.score_file import (
    LABEL_SCHEMA,
    PAIR_HASH,
    SCORE_SCHEMA,
    TOKEN_LOGPROBS,
    read_footer,
)
from rgpt_batch.planning.identity import Identity
from rgpt_batch.planning.same_job import setting_differences
from rgpt_batch.reuse.index import HIGH, LOW, SCORE_COLUMNS, split_hashes

_READ_ROWS = 2**16
# Rows of a record batch of the index; all of them are in memory once, when it is written.
_BATCH_ROWS = 2**20
_MEMORY_GIB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierScores:
    """The scores of an output folder that a new job may reuse.

    Attributes:
        files: Its committed files, in order.
        num_rows: Their rows, rejected ones included.
        has_logprobs: Whether the new job needs the logprobs per token, too.
        judges: Whether they were made of labels' logits, which are kept, too.
        problem: Why its files are not all that the earlier job was to score; None where they are.
    """

    location: str
    fingerprint: str
    files: tuple[str, ...]
    num_rows: int
    has_logprobs: bool
    judges: bool
    problem: str | None

    def record(self) -> dict[str, Any]:
        """Return what the record of a run says of them."""
        return {
            "output": self.location,
            "fingerprint": self.fingerprint,
            "num_files": len(self.files),
            "num_rows": self.num_rows,
        }


def find_earlier_scores(earlier: str, output: Store, identity: Identity) -> EarlierScores:
    """Check whether the scores of an output folder may be reused; writes nothing.

    A folder whose job has not finished gives what it has committed.

    Args:
        earlier: The output folder.
        output: That of the new job.
        identity: The new job's.

    Raises:
        ConfigError: The folder holds no job, is the new job's own, or lacks what is needed.
        ManifestMismatch: Its scores were made with other settings.
        ShardError: One of its files is damaged or of another job.
        StorageError: One of its files cannot be read.
    """
    store = open_store(earlier)
    if Path(store.location).resolve() == Path(output.location).resolve():
        raise ConfigError(
            f"{earlier}: --reuse names the output folder itself. Leave --reuse out to resume its "
            "job; for a changed input give another --output."
        )
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(
            f"{earlier}: holds no job of rgpt-batch whose scores could be reused. Name the output "
            "folder of an earlier job, or leave --reuse out."
        )
    _check_settings(store.location, manifest.identity, identity)
    listing = store.listing()
    files = listing.files
    num_rows = 0
    for file in files.values():
        try:
            footer, metadata = read_footer(file.path)
        except ShardError as error:
            raise ShardError(f"{error} Delete it; its pairs are then scored again.") from error
        if footer.fingerprint != manifest.fingerprint or metadata.num_rows != footer.num_rows:
            raise ShardError(
                f"{file.path}: belongs to another job, or lacks rows. Delete it; its pairs are "
                "then scored again."
            )
        num_rows += footer.num_rows
    return EarlierScores(
        location=store.location,
        fingerprint=manifest.fingerprint,
        files=tuple(file.path for file in files.values()),
        num_rows=num_rows,
        has_logprobs=identity.written.query_token_logprobs,
        judges=identity.judges,
        problem=listing.problem,
    )


def build_index(earlier: EarlierScores, output: Store) -> str:
    """Write the index of earlier scores below the output folder, or find it there; see ScoreIndex.

    It is named by what it holds, so that a job that resumes has it already.

    Raises:
        ShardError: A file of the earlier job is damaged.
        StorageError: A file of the earlier job cannot be read.
        ConfigError: The disk is full.
    """
    index = _index_folder(output) / f"{_digest(earlier)}.arrow"
    if index.exists():
        return str(index)
    index.parent.mkdir(parents=True, exist_ok=True)
    # What a killed run leaves there goes some day.
    staging = Path(output.location, "_rgpt", "staging")
    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sorting-", dir=staging) as work:
        written = Path(work, index.name)
        _write_sorted(earlier, written)
        # Another run of the same command may have been faster; its index is the same.
        with suppress(FileExistsError):
            os.link(written, index)
    return str(index)


def drop_indexes(output: Store) -> None:
    """Delete what build_index has written; another run that builds or reads one goes on."""
    with suppress(OSError):
        for index in _index_folder(output).glob("*.arrow"):
            index.unlink(missing_ok=True)


def _index_folder(output: Store) -> Path:
    return Path(output.location, "_rgpt", "reuse")


def _check_settings(location: str, old: Identity, new: Identity) -> None:
    if not old.written.pair_hash:
        raise ConfigError(
            f"{location}: its files have no column {PAIR_HASH}, so pairs cannot be recognised. "
            "Leave --reuse out; with output.pair_hash=true, the default, the new output has it."
        )
    if old.scoring != new.scoring:
        raise ManifestMismatch(
            f"{location}: its scores cannot be reused, because they were made in another way:\n"
            f"{setting_differences(old.scoring, new.scoring)}\n"
            "Score with the same settings, or leave --reuse out."
        )
    if new.written.query_token_logprobs and not old.written.query_token_logprobs:
        raise ConfigError(
            f"{location}: has no column {TOKEN_LOGPROBS}, which output.{TOKEN_LOGPROBS} asks for. "
            "Leave --reuse or the option out."
        )


def _digest(earlier: EarlierScores) -> str:
    """Name an index by all that it depends on."""
    parts = [earlier.fingerprint, str(earlier.has_logprobs)]
    for path in earlier.files:
        status = os.stat(path)
        parts.append(f"{path} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _write_sorted(earlier: EarlierScores, path: Path) -> None:
    schema = _index_schema(earlier)
    errors: list[RgptBatchError] = []
    rows = pa.RecordBatchReader.from_batches(schema, _read(earlier, schema, errors))
    remedy = "Make room where the output folder is, or leave --reuse out."
    try:
        with open_database(_MEMORY_GIB, str(path.parent), remedy=remedy) as connection:
            connection.register("scores", rows)
            result = connection.execute(f"SELECT * FROM scores ORDER BY {HIGH}, {LOW}")
            with path.open("wb") as stream:
                with pa.ipc.new_file(stream, schema) as writer:
                    for batch in result.to_arrow_reader(_BATCH_ROWS):
                        writer.write_batch(batch.cast(schema))
                os.fsync(stream.fileno())
    except ShardError as error:
        # DuckDB reports what reading has raised as an error of its own.
        raise errors[0] if errors else error from error


def _read(
    earlier: EarlierScores, schema: pa.Schema, errors: list[RgptBatchError]
) -> Iterator[pa.RecordBatch]:
    """Yield the scored rows of all files, with their hashes in halves."""
    for path in earlier.files:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(_READ_ROWS, columns=[PAIR_HASH, *schema.names[2:]]):
                    yield _to_index_rows(batch, schema)
        except (OSError, MemoryError, pa.ArrowException, KeyError) as error:
            failure: RgptBatchError = read_error(path, error)
            if isinstance(failure, ShardError):
                failure = ShardError(f"{failure} Delete it; its pairs are then scored again.")
            errors.append(failure)
            raise failure from error


def _to_index_rows(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    scored = batch.filter(pc.and_(pc.is_valid(batch[PAIR_HASH]), pc.is_valid(batch["score"])))
    hashes = scored[PAIR_HASH]
    width = hashes.type.byte_width
    start = hashes.offset * width
    high, low = split_hashes(
        hashes.buffers()[1].slice(start, len(hashes) * width).to_pybytes() if len(hashes) else b""
    )
    return pa.record_batch(
        [pa.array(high), pa.array(low), *(scored[name] for name in schema.names[2:])],
        schema=schema,
    )


def _index_schema(earlier: EarlierScores) -> pa.Schema:
    halves = [(HIGH, pa.uint64()), (LOW, pa.uint64())]
    scores = [SCORE_SCHEMA.field(name) for name in SCORE_COLUMNS]
    labels = LABEL_SCHEMA if earlier.judges else []
    logprobs = [(TOKEN_LOGPROBS, pa.list_(pa.float32()))] if earlier.has_logprobs else []
    return pa.schema([*halves, *scores, *labels, *logprobs])
