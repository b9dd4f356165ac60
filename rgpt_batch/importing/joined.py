"""Input whose texts stand in tables of their own: candidates, queries and documents.

facts     files and columns of the tables; the job's identity covers them
shards    the join, out of core as in `import`, to pair shards below the output folder
score     like any shards

Shards are ordered by document: rows of the same document follow each other, so its text takes
space on disk once, and an engine with a prefix cache reads it once. They stay when the job is done,
since `verify` reads them; deleting _rgpt/pairs-* then does no other harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from rgpt_batch.config.arguments import Location, as_locations
from rgpt_batch.config.options import InputConfig, JobConfig
from rgpt_batch.database import open_database
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.join import Chosen, Join, MissingIds
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
from rgpt_batch.importing.shards import (
    ROWS_PER_SHARD,
    document_groups,
    make_shards,
    write_shards,
)
from rgpt_batch.importing.sources.pairs import OpenTexts, with_texts
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.find import resolve_inputs
from rgpt_batch.input.footers import READ_ERRORS, input_error
from rgpt_batch.input.inspect import Shard, inspect_shards
from rgpt_batch.output.scored_files import is_parquet
from rgpt_batch.planning.identity import InputFile, InputTable, TableFiles
from rgpt_batch.planning.pair_shards import Report
from rgpt_batch.storage.files import open_version
from rgpt_batch.storage.selection import is_parquet_name

_Given = Location | Sequence[Location]
_COLUMNS = ("query_id", "doc_id", "query", "document")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTables:
    """Where the texts of an input of ids stand: Parquet files, folders or glob patterns.

    Attributes:
        queries: Ids and texts; None where the candidates hold the text of their query.
        documents: The same for documents.
    """

    queries: Location | Sequence[Location] | None = None
    documents: Location | Sequence[Location] | None = None


class JoinedTables:
    """Candidates and the tables of their texts; see JobInput.

    Args:
        config: The job's.
        candidates: The one table of candidates: a file, a folder, a pattern, or its files.
        texts: The tables of texts.
        only: Candidates that alone are wanted; None for all.

    Raises:
        ConfigError: A path names nothing or no Parquet, or an option does not go with tables.
        ShardError: A file is unreadable, or lacks a column.
    """

    def __init__(
        self,
        config: JobConfig,
        candidates: _Given,
        texts: TextTables,
        only: Chosen | None = None,
    ) -> None:
        self._config = config
        self._only = only
        self._relations = _open_relations(config, candidates, texts)
        tables = list(self._relations.tables.values())
        self.paths: Sequence[str] = [path for table in tables for path in table.paths]
        self.arguments: Sequence[str] = [table.origin for table in tables]

    @property
    def columns(self) -> Columns:
        """The columns of the shards that the join writes, as far as the job reads them."""
        names = dict(zip(_COLUMNS, _COLUMNS, strict=True))
        return Columns(**names, pass_through=self._config.output.pass_through)

    def facts(self) -> TableFiles:
        """Say which files the tables have, in which versions, and which columns are used.

        Raises:
            ShardError: A file is damaged.
            StorageError: A file cannot be reached.
        """
        tables = {name: _facts(table) for name, table in self._relations.tables.items()}
        return TableFiles(
            candidates=tables["candidates"],
            queries=tables.get("queries"),
            documents=tables.get("documents"),
            only=None if self._only is None else self._only.facts(),
        )

    def shards(self, fingerprint: str, output: str, report: Report) -> Sequence[Shard]:
        """Join the tables, or find that done, and return the shards.

        Raises:
            ConfigError: There are no candidates, or the disk is too small.
            ShardError: Ids are unknown or ambiguous, or a table has changed meanwhile.
        """
        folder = Path(output, "_rgpt", f"pairs-{fingerprint}")
        if not folder.is_dir():
            report("joining candidates with their texts")
            make_shards(folder, self._join)
        paths = resolve_inputs([str(folder)])
        return inspect_shards(paths, InputConfig(), self._config.output.pass_through)

    def _join(self, shards: Path, work: str) -> None:
        before = self.facts()
        options = self._config.input
        remedy = "Raise input.join_memory_gib, or make room where the output folder is."
        with open_database(options.join_memory_gib, work, remedy=remedy) as connection:
            join = Join(connection, self._relations, self._only)
            join.check()
            if not join.num_pairs()[0]:
                what = "pairs" if self._only is None else "pair of --only; compare the ids of both"
                raise ConfigError(
                    f"{self._relations.candidates.origin}: holds no {what}. Give another file."
                )
            if options.missing == "error":
                _check_missing(self._relations, join.missing_queries(), join.missing_documents())
            rows = join.batches(
                "document", memory_gib=options.join_memory_gib, folder=work, remedy=remedy
            )
            groups = document_groups(rows, "doc_id", self._config.units)
            write_shards(groups, shards, ROWS_PER_SHARD)
            if self.facts() != before:
                raise ShardError("a table changed while it was read. Run the same command again.")


def _open_relations(config: JobConfig, candidates: _Given, texts: TextTables) -> Relations:
    if any(config.input.columns.model_dump().values()):
        raise ConfigError(
            "input.columns does not go with --queries or --documents, whose columns are found by "
            "their usual names. Rename columns that have others."
        )

    def later(given: _Given | None, kind: Kind) -> OpenTexts | None:
        return None if given is None else lambda: _open(given, kind)

    relations = with_texts(
        _open(candidates, PAIRS),
        later(texts.queries, QUERIES),
        later(texts.documents, DOCUMENTS),
        corpus_option="--documents",
    )
    kept = [role for role in (SCORE, RANK) if role in relations.candidates.columns]
    if unknown := sorted(set(config.output.pass_through) - set(kept)):
        raise ConfigError(
            f"output.pass_through: {', '.join(unknown)} cannot be copied. Of candidates that are "
            f"joined with their texts, {' and '.join(kept) or 'no further columns'} can be."
        )
    return relations


def _open(given: _Given, kind: Kind) -> Table:
    paths = as_locations(given, kind.noun)
    for path in paths:
        if Path(path).is_file() and not (is_parquet_name(path) or is_parquet(path)):
            raise ConfigError(
                f"{path}: `score` joins Parquet alone, and this {kind.noun} is none. Convert it, "
                "or join with `import`, which reads other formats, too."
            )
    return open_parquet(paths, kind)


def _facts(table: Table) -> InputTable:
    with ThreadPoolExecutor(max_workers=16) as pool:
        files = tuple(pool.map(_input_file, table.paths))
    return InputTable(columns=dict(table.columns), files=files)


def _input_file(path: str) -> InputFile:
    try:
        version, source = open_version(path)
        num_groups = pq.read_metadata(source).num_row_groups
    except READ_ERRORS as error:
        raise input_error(path, error) from error
    return InputFile(path=path, version=version, num_row_groups=num_groups)


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
