"""From scored pairs to rankings: the top k documents of every query.

The ranking score of a pair is one of

    ql           the score itself, the query's mean logprob
    interpolate  alpha · n(ql) + (1 - alpha) · n(f)
    rrf          1 / (60 + rank by ql) + 1 / (60 + rank by f)

where f is a first-stage score, e.g. BM25's, and n brings both to one scale, per query and over its
pairs that have the score:

    minmax       (x - min) / (max - min)
    zscore       (x - mean) / standard deviation
    none         x

Where all x of a query are equal, minmax and zscore are 0. A pair that the first stage lacks counts
as the lowest one that it has for the query. Reciprocal rank fusion (Cormack, Clarke and Büttcher,
SIGIR 2009) looks at ranks alone; a pair that the first stage lacks gets nothing from it.

Equal scores are ordered by doc_id, descending, as trec_eval orders them. Rejected pairs have no
score and come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import duckdb

from rgpt_batch.config.arguments import Location, as_location, as_locations, check_choice
from rgpt_batch.database import DEFAULT_MEMORY_GIB, fetch_rows, open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.output.scored_files import find_files, is_parquet
from rgpt_batch.ranking.tables import Duplicates, best_first, load_pairs, load_run
from rgpt_batch.ranking.trec import write_run
from rgpt_batch.storage.written_files import check_output, replacing

RunFormat = Literal["parquet", "trec"]
Normalization = Literal["zscore", "minmax", "none"]

RRF_K = 60
DEFAULT_NORMALIZATION: Normalization = "zscore"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstStage:
    """Where first-stage scores come from.

    Attributes:
        file: A TREC run or Parquet file, joined by the ids; None for a column of the scored files.
        column: The column of the Parquet file or the scored files; a TREC run has none.
    """

    file: Location | None = None
    column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How first-stage scores enter the ranking.

    Attributes:
        first_stage: The scores.
        alpha: Weight of the query likelihood in an interpolation, 0 to 1; None for reciprocal rank
            fusion.
        normalize: How an interpolation brings both scores to one scale.
    """

    first_stage: FirstStage
    alpha: float | None
    normalize: Normalization = DEFAULT_NORMALIZATION

    @property
    def name(self) -> str:
        """What a run's tag says of it."""
        return "rrf" if self.alpha is None else f"interpolate-{self.alpha:g}-{self.normalize}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSummary:
    """What was ranked.

    Attributes:
        num_pairs: Pairs read that have ids.
        num_ranked: Rows written.
        num_rejected: Pairs without a score.
        num_without_ids: Rows that no ranking can hold, because their ids were unreadable.
        num_without_first_stage: Pairs that the first stage lacks; None without one.
    """

    num_queries: int
    num_pairs: int
    num_ranked: int
    num_rejected: int
    num_without_ids: int
    num_without_first_stage: int | None


def rank(
    scored: Location | Iterable[Location],
    output: Location,
    *,
    top_k: int,
    run_format: RunFormat = "parquet",
    tag: str | None = None,
    score_column: str = "score",
    keep_rejected: bool = True,
    duplicates: Duplicates = "error",
    fusion: Fusion | None = None,
    memory_gib: float = DEFAULT_MEMORY_GIB,
    temp_folder: Location | None = None,
) -> RankingSummary:
    """Write the best pairs of every query, by query_id and rank, in one atomic step.

    A Parquet ranking has the columns query_id, doc_id, rank (int32 from 1) and score, and after a
    fusion also ql_score and first_stage_score. See ranking.trec for TREC runs.

    Args:
        scored: An output folder of `score`, a Parquet file or a pattern, or several.
        output: The file to write; see output_files.replacing.
        top_k: Pairs per query.
        run_format: Of the output.
        tag: Name of a TREC run; by default rgpt, and after a fusion how it was done, too.
        score_column: What to rank by, higher first.
        keep_rejected: Rank pairs without a score last instead of leaving them out.
        duplicates: See ranking.tables.load_pairs.
        fusion: Adds first-stage scores.
        memory_gib: What DuckDB may hold in memory.
        temp_folder: Where DuckDB puts what does not fit.

    Raises:
        ConfigError: Nothing to rank, an unfinished job, a first stage that matches no pair, or an
            output that cannot be written.
        ShardError: A file cannot be used.
    """
    check_choice(run_format, "run_format", get_args(RunFormat))
    check_choice(duplicates, "duplicates", get_args(Duplicates))
    if not isinstance(top_k, int) or top_k < 1:
        raise ConfigError(f"top_k: expected a whole number from 1, found {top_k!r}.")
    if fusion is not None:
        check_choice(fusion.normalize, "normalize", get_args(Normalization))
    if tag is None:
        tag = "rgpt" if fusion is None else f"rgpt-{fusion.name}"
    output = as_location(output, "output")
    temp_folder = None if temp_folder is None else as_location(temp_folder, "temp_folder")
    check_output(output)
    files = find_files(as_locations(scored, "scored"))
    with open_database(memory_gib, temp_folder) as connection:
        num_without_ids = _load(connection, files, score_column, duplicates, fusion)
        num_queries, num_pairs, num_rejected, num_unknown = connection.execute(
            "SELECT count(DISTINCT query_id), count(*), count(*) - count(score), "
            "count(*) - count(first_stage_score) FROM pairs"
        ).fetchall()[0]
        if fusion is not None and num_unknown == num_pairs > 0:
            raise ConfigError(
                f"{fusion.first_stage.file or fusion.first_stage.column}: has no score for any of "
                "the scored pairs. Compare the ids of both."
            )
        ranked = _ranked(fusion, top_k, keep_rejected)
        with replacing(output, temp_folder) as file:
            if run_format == "trec":
                rows = connection.execute(f"SELECT query_id, doc_id, rank, score FROM ({ranked})")
                num_ranked = write_run(fetch_rows(rows), file, tag)
            else:
                target = str(file).replace("'", "''")
                num_ranked = connection.execute(
                    f"COPY ({ranked}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
                ).fetchall()[0][0]
    return RankingSummary(
        num_queries=num_queries,
        num_pairs=num_pairs,
        num_ranked=num_ranked,
        num_rejected=num_rejected,
        num_without_ids=num_without_ids,
        num_without_first_stage=None if fusion is None else num_unknown,
    )


def _load(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[str],
    score_column: str,
    duplicates: Duplicates,
    fusion: Fusion | None,
) -> int:
    """Make the table pairs; returns how many rows had no id."""
    first_stage = fusion.first_stage if fusion else FirstStage()
    if first_stage.file is None:
        return load_pairs(
            connection,
            "pairs",
            files,
            score=score_column,
            first_stage=first_stage.column,
            duplicates=duplicates,
        )
    num_without_ids = load_pairs(
        connection, "scored", files, score=score_column, duplicates=duplicates
    )
    first_stage_file = as_location(first_stage.file, "first_stage.file")
    if is_parquet(first_stage_file):
        first_stage_files = find_files([first_stage_file])
        column = first_stage.column or "score"
        load_pairs(
            connection, "first_stage", first_stage_files, score=column, duplicates=duplicates
        )
    else:
        load_run(connection, "first_stage", first_stage_file, duplicates=duplicates)
    connection.execute(
        "CREATE TEMP TABLE pairs AS SELECT scored.* REPLACE (f.score AS first_stage_score) "
        "FROM scored LEFT JOIN first_stage AS f USING (query_id, doc_id)"
    )
    connection.execute("DROP TABLE scored")
    return num_without_ids


_NORMALIZED = {
    "minmax": "coalesce(({x} - min({x}) OVER q) / nullif(max({x}) OVER q - min({x}) OVER q, 0), 0)",
    "zscore": "coalesce(({x} - avg({x}) OVER q) / nullif(stddev_pop({x}) OVER q, 0), 0)",
    "none": "{x}",
}
# Where the first stage has no score for a query at all, its part is 0.
_INTERPOLATED = """
    SELECT query_id, doc_id,
           if(ql_score IS NULL, NULL, {alpha} * n_ql + (1 - {alpha})
               * coalesce(n_f, min(n_f) OVER (PARTITION BY query_id), 0)) AS score,
           ql_score, first_stage_score
    FROM (SELECT query_id, doc_id, score AS ql_score, first_stage_score, {ql} AS n_ql,
                 if(first_stage_score IS NULL, NULL, {f}) AS n_f
          FROM pairs
          WINDOW q AS (PARTITION BY query_id))
"""
_FUSED_BY_RANK = f"""
    SELECT query_id, doc_id,
           1 / ({RRF_K} + ql_rank)
               + if(first_stage_score IS NULL, 0, 1 / ({RRF_K} + first_stage_rank)) AS score,
           ql_score, first_stage_score
    FROM (SELECT *,
                 score AS ql_score,
                 if(score IS NULL, NULL, row_number() OVER (
                     PARTITION BY query_id ORDER BY {best_first("score")}
                 )) AS ql_rank,
                 row_number() OVER (
                     PARTITION BY query_id ORDER BY {best_first("first_stage_score")}
                 ) AS first_stage_rank
          FROM pairs)
"""


def _ranked(fusion: Fusion | None, top_k: int, keep_rejected: bool) -> str:
    """Return the SELECT that ranks the table pairs."""
    if fusion is None:
        scores = "SELECT query_id, doc_id, score FROM pairs"
    elif fusion.alpha is None:
        scores = _FUSED_BY_RANK
    else:
        normalized = _NORMALIZED[fusion.normalize]
        scores = _INTERPOLATED.format(
            alpha=f"{fusion.alpha!r}::DOUBLE",
            ql=normalized.format(x="score::DOUBLE"),
            f=normalized.format(x="first_stage_score"),
        )
    return f"""
        SELECT query_id, doc_id,
               row_number() OVER (
                   PARTITION BY query_id ORDER BY {best_first()}
               )::INTEGER AS rank,
               * EXCLUDE (query_id, doc_id)
        FROM ({scores})
        {"" if keep_rejected else "WHERE score IS NOT NULL"}
        QUALIFY rank <= {top_k}
        ORDER BY query_id, rank
    """
