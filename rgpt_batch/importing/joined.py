"""Input whose texts stand in tables of their own: candidates, queries and documents.

identify  tables_identity   files and columns of the tables; the fingerprint covers them
join      join_tables       as `import` does, out of core, to pair shards below the output folder
score     like any shards

Shards are ordered by document: rows of the same document follow each other, so its text takes
space on disk once, and an engine with a prefix cache reads it once. They stay when the job is done,
since `verify` reads them; deleting _rgpt/pairs-* then does no other harm.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from rgpt_batch.config.options import JobConfig
from rgpt_batch.database import open_database
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.import_pairs import write_shards
from rgpt_batch.importing.join import Join, MissingIds
from rgpt_batch.importing.readers.relations import (
    DOCUMENTS,
    PAIRS,
    QUERIES,
    RANK,
    SCORE,
    Kind,
    Relations,
    Table,
)
from rgpt_batch.importing.readers.tables import open_parquet
from rgpt_batch.input.columns import Columns
from rgpt_batch.planning.manifest import Identity
from rgpt_batch.storage.files import open_version

_ROWS_PER_SHARD = 100_000


_ORDER = "input order"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTables:
    """Where the texts of an input of ids stand: Parquet files, folders or glob patterns.

    Attributes:
        queries: Ids and texts; None where the candidates hold the text of their query.
        documents: The same for documents.
    """

    queries: str | None = None
    documents: str | None = None


def open_tables(inputs: Sequence[str], tables: TextTables, config: JobConfig) -> Relations:
    """Find the three tables and their columns.

    Raises:
        ConfigError: A path names nothing or no Parquet, or an option does not go with tables.
        ShardError: A file is unreadable, or lacks a column.
    """
    if len(inputs) != 1:
        raise ConfigError(
            f"--input is given {len(inputs)} times; with --queries or --documents it names the one "
            "table of candidates: a Parquet file, a folder or a pattern."
        )
    if any(config.input.columns.model_dump().values()):
        raise ConfigError(
            "input.columns does not go with --queries or --documents, whose columns are found by "
            "their usual names. Rename columns that have others."
        )
    candidates = _open(inputs[0], PAIRS)
    for role, given, option in (
        ("query", tables.queries, "--queries"),
        ("document", tables.documents, "--documents"),
    ):
        if given is not None:
            candidates = candidates.without(role)
        elif role not in candidates.columns:
            raise ConfigError(
                f"{inputs[0]}: the candidates have no {role} column. Give the table of texts with "
                f"{option}, or rename the column."
            )
    kept = [role for role in (SCORE, RANK) if role in candidates.columns]
    if unknown := sorted(set(config.output.pass_through) - set(kept)):
        raise ConfigError(
            f"output.pass_through: {', '.join(unknown)} cannot be copied. Of candidates that are "
            f"joined with their texts, {' and '.join(kept) or 'no further columns'} can be."
        )
    return Relations(
        candidates=candidates,
        queries=None if tables.queries is None else _open(tables.queries, QUERIES),
        documents=None if tables.documents is None else _open(tables.documents, DOCUMENTS),
    )


def joined_columns(config: JobConfig) -> Columns:
    """Return the columns of the shards that join_tables writes, as far as the job reads them."""
    return Columns(
        query_id="query_id",
        doc_id="doc_id",
        query="query",
        document="document",
        pass_through=config.output.pass_through,
    )


def is_joined(identity: Identity) -> bool:
    """Whether a job's pairs were joined from tables."""
    return _ORDER in identity


def tables_identity(relations: Relations) -> Identity:
    """Collect what the joined rows depend on.

    Raises:
        ShardError: A file is gone.
    """
    identity = {_ORDER: "doc_id, query_id"}
    for name, table in _tables(relations):
        identity[f"input columns of {name}"] = json.dumps(dict(table.columns))
        for path in table.paths:
            try:
                num_groups = pq.read_metadata(path).num_row_groups
                identity[f"input {name} {path}"] = (
                    f"{open_version(path)[0]}, {num_groups} row groups"
                )
            except OSError as error:
                raise ShardError(f"{path}: cannot be read: {error}. Bring it back.") from error
    return identity


def join_tables(relations: Relations, fingerprint: str, output: str, config: JobConfig) -> str:
    """Write the joined pairs as Parquet shards, or find them there; returns their folder.

    Args:
        relations: What to join.
        fingerprint: The job's, which names the folder.
        output: The job's output folder.
        config: The job's.

    Raises:
        ConfigError: There are no candidates, or the disk is too small.
        ShardError: Ids are unknown or ambiguous, or a table has changed meanwhile.
    """
    final = Path(output, "_rgpt", f"pairs-{fingerprint}")
    if final.is_dir():
        return str(final)
    staging = final.parent / "staging"
    staging.mkdir(parents=True, exist_ok=True)
    before = tables_identity(relations)
    memory_gib = config.input.join_memory_gib
    remedy = "Raise input.join_memory_gib, or make room where the output folder is."
    with (
        tempfile.TemporaryDirectory(prefix="joining-", dir=staging) as work,
        open_database(memory_gib, work, remedy=remedy) as connection,
    ):
        shards = Path(work, "shards")
        # mkdir obeys the umask; the temporary folder is closed to others.
        shards.mkdir()
        join = Join(connection, relations)
        join.check()
        if not join.num_pairs()[0]:
            raise ConfigError(f"{relations.candidates.origin}: holds no pairs. Give another file.")
        if config.input.missing == "error":
            _check_missing(relations, join.missing_queries(), join.missing_documents())
        write_shards(join.batches("document"), shards, _ROWS_PER_SHARD)
        if tables_identity(relations) != before:
            raise ShardError("a table changed while it was read. Run the same command again.")
        # Another run of the same command may have been faster; its shards are the same.
        with suppress(OSError):
            shards.rename(final)
    if not final.is_dir():
        raise ConfigError(f"{final}: cannot be written. Check the permissions.")
    return str(final)


def _open(path: str, kind: Kind) -> Table:
    if Path(path).is_file() and Path(path).suffix != ".parquet":
        raise ConfigError(
            f"{path}: `score` joins Parquet alone, and this {kind.noun} is none. Convert it, or "
            "join with `import`, which reads other formats, too."
        )
    return open_parquet(path, kind)


def _tables(relations: Relations) -> list[tuple[str, Table]]:
    named = (
        ("candidates", relations.candidates),
        ("queries", relations.queries),
        ("documents", relations.documents),
    )
    return [(name, table) for name, table in named if table is not None]


def _check_missing(relations: Relations, queries: MissingIds, documents: MissingIds) -> None:
    problems = [
        f"{missing.num_pairs:,} pairs have a {role} that is not there, such as "
        f"{', '.join(missing.examples)}"
        for role, missing in (("query_id", queries), ("doc_id", documents))
        if missing.num_ids
    ]
    if problems:
        raise ShardError(
            f"{relations.candidates.origin}: {'; '.join(problems)}. Give the tables that belong to "
            "the candidates, or keep such pairs without a score with --missing reject."
        )
