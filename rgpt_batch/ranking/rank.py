"""From scored pairs to rankings: the top k documents of every query.

The ranking score of a pair is the score itself, or a fusion of it with a first stage's; see
ranking.fusion.

Equal scores are ordered by doc_id, descending, as trec_eval orders them. Rejected pairs have no
score and come last.

Where only the best pairs of an earlier ranking were scored, its other pairs follow below, without a
score and in its order, and among them the rejected ones.
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
from rgpt_batch.ranking.fusion import DEFAULT_NORMALIZATION as DEFAULT_NORMALIZATION
from rgpt_batch.ranking.fusion import FirstStage as FirstStage
from rgpt_batch.ranking.fusion import Fusion as Fusion
from rgpt_batch.ranking.fusion import Normalization as Normalization
from rgpt_batch.ranking.fusion import fused_scores
from rgpt_batch.ranking.rankings import RankingSource, load_ranking
from rgpt_batch.ranking.tables import Duplicates, best_first, load_pairs, load_run
from rgpt_batch.ranking.trec import write_run
from rgpt_batch.storage.written_files import check_output, replacing

RunFormat = Literal["parquet", "trec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSummary:
    """What was ranked.

    Attributes:
        num_pairs: Pairs read that have ids.
        num_ranked: Rows written.
        num_rejected: Pairs without a score.
        num_without_ids: Rows that no ranking can hold, because their ids were unreadable.
        num_without_first_stage: Pairs that the first stage lacks; None without one.
        num_below: Pairs of the earlier ranking that were not scored; None without one.
    """

    num_queries: int
    num_pairs: int
    num_ranked: int
    num_rejected: int
    num_without_ids: int
    num_without_first_stage: int | None
    num_below: int | None


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
    below: Location | None = None,
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
        below: An earlier ranking, a TREC run or Parquet, whose other pairs come below the scored
            ones in its order.
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
        num_below = None
        if below is not None:
            num_below = _load_below(connection, as_location(below, "below"), keep_rejected)
        ranked = _ranked(fusion, top_k, keep_rejected, num_below is not None)
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
        num_below=num_below,
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


def _load_below(connection: duckdb.DuckDBPyConnection, path: str, keep_rejected: bool) -> int:
    """Make the table below: pairs of an earlier ranking without a score, with their place in it.

    Returns:
        How many of them were not scored; the others are rejected.
    """
    source = RankingSource(path=path, score_column=None, option="--score-column")
    score = load_ranking(connection, "earlier", source)
    rejected = "" if keep_rejected else "AND p.query_id IS NULL"
    connection.execute(
        "CREATE TEMP TABLE below AS SELECT e.query_id, e.doc_id, e.place, "
        "p.query_id IS NULL AS is_new FROM (SELECT query_id, doc_id, row_number() OVER ("
        f"PARTITION BY query_id ORDER BY {best_first(score)}) AS place FROM earlier) AS e "
        f"LEFT JOIN pairs AS p USING (query_id, doc_id) WHERE p.score IS NULL {rejected}"
    )
    connection.execute("DROP TABLE earlier")
    found = connection.execute("SELECT count(*) FROM below WHERE is_new").fetchall()
    return int(found[0][0])


def _ranked(fusion: Fusion | None, top_k: int, keep_rejected: bool, has_below: bool) -> str:
    """Return the SELECT that ranks the table pairs, above the table below if there is one."""
    scores = fused_scores(fusion)
    order, exclude = best_first(), "query_id, doc_id"
    if has_below:
        # Of pairs without a score those come first that the earlier ranking has.
        scores = f"""
            SELECT * FROM ({scores}) LEFT JOIN
                (SELECT query_id, doc_id, place FROM below WHERE NOT is_new)
                USING (query_id, doc_id)
            UNION ALL BY NAME SELECT query_id, doc_id, place FROM below WHERE is_new
        """
        order = "score DESC NULLS LAST, place NULLS LAST, doc_id DESC"
        exclude += ", place"
    return f"""
        SELECT query_id, doc_id,
               row_number() OVER (PARTITION BY query_id ORDER BY {order})::INTEGER AS rank,
               * EXCLUDE ({exclude})
        FROM ({scores})
        {"" if keep_rejected else f"WHERE score IS NOT NULL{' OR place IS NOT NULL' * has_below}"}
        QUALIFY rank <= {top_k}
        ORDER BY query_id, rank
    """
