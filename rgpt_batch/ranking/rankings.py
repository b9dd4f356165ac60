"""Rankings as they are evaluated: query by query, from a TREC run, a Parquet ranking or pairs.

The order is trec_eval's: by score, and where scores are equal by doc_id, descending. Of a TREC run
scores are compared in float32, as trec_eval does (see readers.trec). A Parquet ranking is read in
the order of its column `rank`, unless a score column is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import duckdb

from rgpt_batch.database import fetch_rows
from rgpt_batch.errors import ConfigError
from rgpt_batch.output.scored_files import column_names, find_files, is_parquet
from rgpt_batch.ranking.tables import best_first, load_pairs, load_run

Database = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSource:
    """Where rankings come from.

    Attributes:
        path: A TREC run, or a Parquet file, folder or pattern.
        score_column: The column of Parquet to rank by, higher first; None for `rank` where there is
            one, else `score`.
        option: What messages call the option that names the column.
    """

    path: str
    score_column: str | None
    option: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The documents of one query, best first.

    Attributes:
        scores: What put them in this order; a rejected pair has none.
    """

    query_id: str
    doc_ids: Sequence[str]
    scores: Sequence[float | None]

    def is_tied_at(self, cutoff: int) -> bool:
        """Whether the last document above a cut and the first one below have equal scores."""
        return cutoff < len(self.scores) and self.scores[cutoff - 1] == self.scores[cutoff]


def read_rankings(
    source: RankingSource, query_ids: Sequence[str], database: Database
) -> Iterator[Ranking]:
    """Yield the rankings of those queries that there are, by query_id.

    Raises:
        ConfigError: The path names nothing, or a score column is named for a TREC run.
        ShardError: A file cannot be used.
    """
    with database() as connection:
        score = load_ranking(connection, "run", source, query_ids)
        result = connection.execute(
            f"SELECT query_id, doc_id, {score} AS score FROM run "
            "WHERE query_id IN (SELECT unnest($query_ids)) "
            f"ORDER BY query_id, {best_first()}",
            {"query_ids": list(query_ids)},
        )
        for query_id, rows in groupby(fetch_rows(result), key=itemgetter(0)):
            _, doc_ids, scores = zip(*rows, strict=True)
            yield Ranking(query_id=query_id, doc_ids=doc_ids, scores=scores)


def load_ranking(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    source: RankingSource,
    query_ids: Sequence[str] | None = None,
) -> str:
    """Make a table of a ranking's pairs; errors as read_rankings.

    Args:
        connection: Where the table is made.
        table: Its name; see ranking.tables for its columns.
        source: The ranking.
        query_ids: Leave out all other queries, where that is cheap.

    Returns:
        The SQL of what to order it by, higher first.
    """
    if not is_parquet(source.path):
        if source.score_column is not None:
            raise ConfigError(
                f"{source.path}: a TREC run has no columns. Leave {source.option} out."
            )
        load_run(connection, table, source.path)
        return "score::FLOAT"
    files = find_files([source.path])
    names = column_names(files[0])
    # Scored pairs may have passed a first stage's rank through.
    is_ranking = source.score_column is None and "rank" in names and "rejection" not in names
    column = "rank" if is_ranking else source.score_column or "score"
    load_pairs(connection, table, files, score=column, option=source.option, query_ids=query_ids)
    return "-score::DOUBLE" if is_ranking else "score"
