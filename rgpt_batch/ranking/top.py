"""The best pairs of an earlier ranking, for `score --only RANKING --top-k N`."""

from __future__ import annotations

import os

import duckdb
from pyarrow import parquet as pq

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.errors import ConfigError
from rgpt_batch.input.footers import READ_ERRORS, input_error
from rgpt_batch.output.scored_files import find_files, is_parquet
from rgpt_batch.planning.identity import InputFile, Selection
from rgpt_batch.ranking.rankings import RankingSource, load_ranking
from rgpt_batch.ranking.tables import best_first
from rgpt_batch.storage.files import local_path, open_version
from rgpt_batch.storage.uris import absolute


class TopPairs:
    """The top N of every query of a ranking; see importing.join.Chosen.

    Args:
        ranking: A TREC run, or Parquet: scored files, an output folder of `score`, or a ranking.
        top_k: Pairs per query.

    Raises:
        ConfigError: The ranking is named wrongly, or is a pipe, which could be read only once.
    """

    def __init__(self, ranking: Location, top_k: int) -> None:
        path = as_location(ranking, "only")
        if not isinstance(top_k, int) or top_k < 1:
            raise ConfigError(f"top_k: expected a whole number from 1, found {top_k!r}.")
        # Read again by later runs, which may start in another folder.
        self.path = absolute(path) if local_path(path) else path
        self.top_k = top_k
        if not is_parquet(self.path) and not os.path.isfile(self.path):
            raise ConfigError(f"{path}: --only is read more than once. Write it to a file first.")

    def facts(self) -> Selection:
        """Say which files, in which versions; errors as find_files and inspect_shards."""
        is_table = is_parquet(self.path)
        paths = find_files([self.path]) if is_table else [self.path]
        return Selection(
            ranking=self.path,
            top_k=self.top_k,
            files=tuple(_facts(path, is_table) for path in paths),
        )

    def load(self, connection: duckdb.DuckDBPyConnection, table: str) -> int:
        """Make a table of query_id and doc_id, both text; returns how many pairs it has.

        Raises:
            ShardError: A file cannot be used.
        """
        source = RankingSource(path=self.path, score_column=None, option="--score-column")
        score = load_ranking(connection, f"{table}_ranking", source)
        connection.execute(
            f"CREATE TEMP TABLE {table} AS SELECT query_id, doc_id FROM {table}_ranking "
            "QUALIFY row_number() OVER (PARTITION BY query_id "
            f"ORDER BY {best_first(score)}) <= {self.top_k}"
        )
        connection.execute(f"DROP TABLE {table}_ranking")
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(found[0][0])


def _facts(path: str, is_table: bool) -> InputFile:
    try:
        version, source = open_version(path)
        num_groups = pq.read_metadata(source).num_row_groups if is_table else 0
    except READ_ERRORS as error:
        raise input_error(path, error) from error
    return InputFile(path=path, version=version, num_row_groups=num_groups)
