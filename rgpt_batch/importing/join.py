"""The SQL of `import`: candidates, queries and documents as DuckDB views, checked and joined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import duckdb
import pyarrow as pa

from rgpt_batch.database import quote_name, quote_text
from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.numerals import MAX_SCORE
from rgpt_batch.importing.readers.relations import LINE, RANK, SCORE, Relations, Table
from rgpt_batch.importing.readers.unfit import refuse_unfit
from rgpt_batch.importing.sort import sort_rows
from rgpt_batch.input.rows import database_source
from rgpt_batch.planning.identity import Selection

_NUM_EXAMPLES = 3
_BATCH_ROWS = 2048
_MAX_RANK = 2**31 - 1
# What str.strip takes off.
_WHITE_SPACE = "".join(
    map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)))
) + "".join(map(chr, (0x2028, 0x2029, 0x202F, 0x205F, 0x3000)))

Order = Literal["query", "document"]

_CHOSEN = "chosen"

_TYPES = {LINE: "BIGINT", SCORE: "DOUBLE", RANK: "INTEGER"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingIds:
    """Ids of candidates that the table of queries or documents lacks.

    Attributes:
        num_ids: How many ids.
        num_pairs: How many candidates have one of them.
        examples: Some of them, with the line of the candidates' file where known.
    """

    num_ids: int
    num_pairs: int
    examples: tuple[str, ...]


class Chosen(Protocol):
    """Pairs that alone are wanted."""

    def facts(self) -> Selection:
        """Say where they come from."""
        ...

    def load(self, connection: duckdb.DuckDBPyConnection, table: str) -> int:
        """Make a table of their query_id and doc_id; returns how many they are."""
        ...


class Join:
    """Three relations as views of a DuckDB connection.

    Args:
        connection: Where the views are made.
        relations: What they show.
        only: Candidates that alone are wanted; None for all.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        relations: Relations,
        only: Chosen | None = None,
    ) -> None:
        self._connection = connection
        self._relations = relations
        for name, table in relations.tables.items():
            connection.execute(_view(connection, name, table))
        if only is not None:
            only.load(connection, _CHOSEN)
            given = _view(connection, "all_candidates", relations.candidates)
            connection.execute(given)
            connection.execute(
                "CREATE OR REPLACE TEMP VIEW candidates AS SELECT * FROM all_candidates "
                f"SEMI JOIN {_CHOSEN} USING (query_id, doc_id)"
            )

    def check(self) -> None:
        """Look for what makes a join ambiguous.

        Raises:
            ShardError: Ids are null or empty, a query or document has two texts, a pair is given
                twice, or a score or rank of the first stage is no number to order by.
        """
        candidates = self._relations.candidates
        for role, largest, why in ((SCORE, MAX_SCORE, "float32"), (RANK, _MAX_RANK, "int32")):
            # Readers of text have checked every line.
            if role in candidates.columns and LINE not in candidates.columns:
                name = candidates.columns[role]
                # One file may be a copy of an Arrow file.
                origin = candidates.origin if len(candidates.paths) == 1 else None
                refuse_unfit(candidates.paths, name, largest=largest, why=why, origin=origin)
        self._check_ids("candidates", self._relations.candidates, ("query_id", "doc_id"))
        if self._relations.queries is not None:
            self._check_ids("queries", self._relations.queries, ("query_id",))
        if self._relations.documents is not None:
            self._check_ids("documents", self._relations.documents, ("doc_id",))

    def num_pairs(self) -> tuple[int, int]:
        """Return how many candidates and how many queries of candidates there are."""
        found = self._one("SELECT count(*), count(DISTINCT query_id) FROM candidates")
        return int(found[0]), int(found[1])

    def missing_queries(self) -> MissingIds:
        """Find the candidates whose query is unknown."""
        return self._missing("queries", "query_id") if self._relations.queries else _NONE

    def missing_documents(self) -> MissingIds:
        """Find the candidates whose document is unknown."""
        return self._missing("documents", "doc_id") if self._relations.documents else _NONE

    def batches(
        self, order: Order = "query", *, memory_gib: float, folder: str, remedy: str
    ) -> Iterator[pa.RecordBatch]:
        """Yield the joined rows in small batches.

        The order does not depend on the number of threads, as no pair is there twice. DuckDB finds
        each pair's place by ids and numbers alone, and joins; rows with their texts are sorted by
        their places afterwards: its own sort of texts takes memory that grows with the input.

        Args:
            order: By query_id, then rank, score and doc_id; or by doc_id, then query_id.
            memory_gib: What DuckDB may hold in memory; sorting takes a fifth more.
            folder: Where rows are put that do not fit.
            remedy: What an error says about a lack of disk.

        Raises:
            ConfigError: The disk is too small.
        """
        own = self._relations.candidates.columns
        query = "queries.query" if self._relations.queries else "candidates.query"
        document = "documents.document" if self._relations.documents else "candidates.document"
        first_stage = [role for role in (SCORE, RANK) if role in own]
        ranks = [
            *(["candidates.first_stage_rank NULLS LAST"] if RANK in own else []),
            *(["candidates.first_stage_score DESC NULLS LAST"] if SCORE in own else []),
        ]
        keys = {
            "query": ["candidates.query_id", *ranks, "candidates.doc_id"],
            "document": ["candidates.doc_id", "candidates.query_id"],
        }
        joins = ""
        if self._relations.queries:
            joins += " LEFT JOIN queries ON candidates.query_id = queries.query_id"
        if self._relations.documents:
            joins += " LEFT JOIN documents ON candidates.doc_id = documents.doc_id"
        # Another statement would end the one whose rows are being read.
        num_pairs, _ = self.num_pairs()
        reader = self._connection.execute(
            f"SELECT candidates.query_id, {query} AS query, candidates.doc_id, "
            f"{document} AS document"
            + "".join(f", candidates.{role}" for role in first_stage)
            + ", place FROM candidates JOIN (SELECT query_id, doc_id, "
            f"row_number() OVER (ORDER BY {', '.join(keys[order])}) AS place FROM candidates) "
            f"USING (query_id, doc_id){joins}"
        ).to_arrow_reader(_BATCH_ROWS)
        yield from sort_rows(
            ((batch["place"].cast(pa.uint64()).to_numpy(), batch) for batch in reader),
            pa.schema([field for field in reader.schema if field.name != "place"]),
            key_bits=num_pairs.bit_length(),
            memory_gib=memory_gib / 4,
            folder=folder,
            remedy=remedy,
        )

    def _missing(self, name: str, role: str) -> MissingIds:
        has_lines = LINE in self._relations.candidates.columns
        line = f"min({LINE})" if has_lines else "NULL"
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE missing AS SELECT {role} AS id, count(*) AS num_pairs, "
            f"{line} AS line FROM candidates ANTI JOIN {name} USING ({role}) GROUP BY {role}"
        )
        num_ids, num_pairs = self._one("SELECT count(*), coalesce(sum(num_pairs), 0) FROM missing")
        examples = self._connection.execute(
            f"SELECT id, line FROM missing ORDER BY line, id LIMIT {_NUM_EXAMPLES}"
        ).fetchall()
        origin = self._relations.candidates.origin
        return MissingIds(
            num_ids=num_ids,
            num_pairs=int(num_pairs),
            examples=tuple(
                f"'{found}'" + ("" if line is None else f" ({origin}:{line})")
                for found, line in examples
            ),
        )

    def _check_ids(self, name: str, table: Table, roles: tuple[str, ...]) -> None:
        for role in roles:
            (num_null,) = self._one(
                f"SELECT count(*) FROM {name} WHERE {role} IS NULL OR {role} = ''"
            )
            if num_null:
                raise ShardError(
                    f"{table.origin}: {num_null:,} rows have no {role}. Give them one, or leave "
                    "them out."
                )
        has_lines = LINE in table.columns
        lines = f"min({LINE}), max({LINE})" if has_lines else "NULL, NULL"
        ids = ", ".join(roles)
        found = self._connection.execute(
            f"SELECT {ids}, {lines}, count(*) OVER () FROM {name} "
            f"GROUP BY {ids} HAVING count(*) > 1 ORDER BY {ids} LIMIT {_NUM_EXAMPLES}"
        ).fetchall()
        if found:
            examples = "; ".join(
                " with ".join(f"{role} '{value}'" for role, value in zip(roles, row, strict=False))
                + (f" in lines {row[-3]} and {row[-2]}" if has_lines else "")
                for row in found
            )
            what = "pairs are" if len(roles) > 1 else "ids are"
            raise ShardError(
                f"{table.origin}: {found[0][-1]:,} {what} there more than once: {examples}. "
                "Keep one row of each."
            )

    def _one(self, sql: str) -> tuple[int, ...]:
        (row,) = self._connection.execute(sql).fetchall()
        return tuple(row)


_NONE = MissingIds(num_ids=0, num_pairs=0, examples=())


def _view(connection: duckdb.DuckDBPyConnection, name: str, table: Table) -> str:
    """Return the SQL that makes a view whose columns are called by their roles."""
    columns = {role: quote_name(column) for role, column in table.columns.items()}
    values = {
        role: f"CAST({column} AS {_TYPES.get(role, 'VARCHAR')})" for role, column in columns.items()
    }
    if title := values.pop("title", None):
        # As BEIR's models do: (title + " " + text).strip()
        values["document"] = (
            f"trim(coalesce({title}, '') || ' ' || {values['document']}, "
            f"{quote_text(_WHITE_SPACE)})"
        )
    wanted = pa.schema([table.schema.field(name) for name in dict.fromkeys(table.columns.values())])
    # A file may lack the title, for example: its documents have none.
    source = database_source(connection, f"{name}_rows", table.paths, wanted, may_lack=True)
    return (
        f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT "
        + ", ".join(f"{value} AS {role}" for role, value in values.items())
        + f" FROM {source}"
    )
