"""How far do two scored outputs of the same pairs agree? E.g. bfloat16 and float32.

Scores are compared pair by pair, rankings query by query. Rankings are those that `rank` makes of
the pairs that both outputs have scored, so equal scores are ordered by doc_id on both sides, and
per query of n documents

    flips = pairs of documents whose order differs
    τ     = 1 - 2 · flips / (n · (n - 1) / 2)    Kendall (Biometrika 1938)

τ is 1 for the same order and -1 for the reverse; queries of one document have none.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import duckdb
import numpy as np

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.database import DEFAULT_MEMORY_GIB, fetch_rows, open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.output.scored_files import find_files
from rgpt_batch.ranking.estimates import MetricResult
from rgpt_batch.ranking.evaluate import evaluate
from rgpt_batch.ranking.tables import best_first, load_pairs

QUALITY_METRIC = "nDCG@10"
TOP_K = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Which pairs the outputs share.

    Attributes:
        num_shared: Pairs in both, rejected or not.
        num_scored: Pairs scored by both.
    """

    num_shared: int
    num_only_in_a: int
    num_only_in_b: int
    num_scored: int
    num_rejected_only_in_a: int
    num_rejected_only_in_b: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDifferences:
    """Score of B minus score of A, in the scores' unit, over pairs scored by both.

    Attributes:
        mean: With sign, so a shift of all scores shows.
        mean_absolute: Mean of |B - A|.
        median_absolute: Half of the pairs differ by no more.
        p90_absolute: 90 % of the pairs differ by no more.
        p99_absolute: 99 % of the pairs differ by no more.
        max_absolute: Largest |B - A|.
        max_query_id: Query of the pair with the largest; None where all scores are equal.
        max_doc_id: Document of the pair with the largest.
    """

    mean: float
    mean_absolute: float
    median_absolute: float
    p90_absolute: float
    p99_absolute: float
    max_absolute: float
    max_query_id: str | None
    max_doc_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingAgreement:
    """How alike the rankings are.

    Attributes:
        num_queries: Queries with pairs scored by both.
        num_document_pairs: Pairs of documents of the same query.
        num_flips: Those in a different order.
        mean_kendall_tau: Over queries of two documents and more; None where there is none.
        mean_top_overlap: Share of A's first TOP_K documents among B's, mean over queries.
    """

    num_queries: int
    num_document_pairs: int
    num_flips: int
    mean_kendall_tau: float | None
    mean_top_overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `compare` found.

    Attributes:
        quality: QUALITY_METRIC of B, with A as the baseline; None without judgements.
    """

    overlap: Overlap
    scores: ScoreDifferences
    rankings: RankingAgreement
    quality: MetricResult | None


def compare(
    scored_a: Location,
    scored_b: Location,
    *,
    qrels_file: Location | None = None,
    score_column: str = "score",
    memory_gib: float = DEFAULT_MEMORY_GIB,
    temp_folder: Location | None = None,
) -> Comparison:
    """Compare two scored outputs, joined by query_id and doc_id.

    Args:
        scored_a: Output folder of `score`, Parquet file or pattern.
        scored_b: The other.
        qrels_file: Judgements; adds the quality of both.
        score_column: What to compare and to rank by, higher first.
        memory_gib: What DuckDB may hold in memory.
        temp_folder: Where DuckDB puts what does not fit.

    Raises:
        ConfigError: Nothing to compare: no pair is scored by both.
        ShardError: A file cannot be used, or holds a pair twice.
    """
    scored_a, scored_b = as_location(scored_a, "scored_a"), as_location(scored_b, "scored_b")
    temp_folder = None if temp_folder is None else as_location(temp_folder, "temp_folder")
    with open_database(memory_gib, temp_folder) as connection:
        for side, scored in (("a", scored_a), ("b", scored_b)):
            load_pairs(connection, side, find_files([scored]), score=score_column)
        overlap = _overlap(connection)
        if not overlap.num_scored:
            raise ConfigError(
                f"{scored_a} and {scored_b}: no pair is scored by both. Compare their ids."
            )
        connection.execute(_JOIN)
        scores = _score_differences(connection)
        rankings = _ranking_agreement(connection)
    quality = None
    if qrels_file is not None:
        found = evaluate(
            scored_b,
            qrels_file,
            baseline=scored_a,
            metrics=QUALITY_METRIC,
            score_column=score_column,
            baseline_score_column=score_column,
            memory_gib=memory_gib,
            temp_folder=temp_folder,
        )
        quality = found.metrics[0]
    return Comparison(overlap=overlap, scores=scores, rankings=rankings, quality=quality)


_JOIN = """
    CREATE TEMP TABLE shared AS
    SELECT query_id, doc_id, a.score AS score_a, b.score AS score_b,
           b.score::DOUBLE - a.score::DOUBLE AS difference
    FROM a JOIN b USING (query_id, doc_id)
    WHERE a.score IS NOT NULL AND b.score IS NOT NULL
"""


def _overlap(connection: duckdb.DuckDBPyConnection) -> Overlap:
    row = connection.execute(
        """
        SELECT count(*) FILTER (a.doc_id IS NOT NULL AND b.doc_id IS NOT NULL),
               count(*) FILTER (b.doc_id IS NULL),
               count(*) FILTER (a.doc_id IS NULL),
               count(*) FILTER (a.score IS NOT NULL AND b.score IS NOT NULL),
               count(*) FILTER (a.score IS NULL AND a.doc_id IS NOT NULL AND b.score IS NOT NULL),
               count(*) FILTER (b.score IS NULL AND b.doc_id IS NOT NULL AND a.score IS NOT NULL)
        FROM a FULL JOIN b USING (query_id, doc_id)
        """
    ).fetchall()[0]
    return Overlap(
        num_shared=row[0],
        num_only_in_a=row[1],
        num_only_in_b=row[2],
        num_scored=row[3],
        num_rejected_only_in_a=row[4],
        num_rejected_only_in_b=row[5],
    )


def _score_differences(connection: duckdb.DuckDBPyConnection) -> ScoreDifferences:
    row = connection.execute(
        """
        SELECT avg(difference), avg(abs(difference)),
               quantile_cont(abs(difference), [0.5, 0.9, 0.99]), max(abs(difference))
        FROM shared
        """
    ).fetchall()[0]
    largest = connection.execute(
        "SELECT query_id, doc_id FROM shared "
        "ORDER BY abs(difference) DESC, query_id, doc_id LIMIT 1"
    ).fetchall()[0]
    return ScoreDifferences(
        mean=row[0],
        mean_absolute=row[1],
        median_absolute=row[2][0],
        p90_absolute=row[2][1],
        p99_absolute=row[2][2],
        max_absolute=row[3],
        max_query_id=largest[0] if row[3] else None,
        max_doc_id=largest[1] if row[3] else None,
    )


def _ranking_agreement(connection: duckdb.DuckDBPyConnection) -> RankingAgreement:
    num_queries = num_document_pairs = num_flips = 0
    taus: list[float] = []
    overlaps: list[float] = []
    for ranks in _ranks_in_b(connection):
        num_documents = len(ranks)
        num_pairs = num_documents * (num_documents - 1) // 2
        num_queries += 1
        flips = _count_inversions(ranks)
        num_document_pairs += num_pairs
        num_flips += flips
        if num_pairs:
            taus.append(1 - 2 * flips / num_pairs)
        depth = min(TOP_K, num_documents)
        overlaps.append(sum(rank <= depth for rank in ranks[:depth]) / depth)
    return RankingAgreement(
        num_queries=num_queries,
        num_document_pairs=num_document_pairs,
        num_flips=num_flips,
        mean_kendall_tau=float(np.mean(taus)) if taus else None,
        mean_top_overlap=float(np.mean(overlaps)),
    )


def _ranks_in_b(connection: duckdb.DuckDBPyConnection) -> Iterator[list[int]]:
    """Yield, for every query, the ranks in B of its documents in A's order."""
    result = connection.execute(
        f"""
        SELECT query_id,
               row_number() OVER (PARTITION BY query_id ORDER BY {best_first("score_b")})
        FROM shared
        ORDER BY query_id, {best_first("score_a")}
        """
    )
    for _, rows in groupby(fetch_rows(result), key=itemgetter(0)):
        yield [rank for _, rank in rows]


def _count_inversions(ranks: Sequence[int]) -> int:
    """Count the pairs in which the larger rank stands first."""
    seen: list[int] = []
    num_inversions = 0
    for rank in reversed(ranks):
        num_smaller = bisect(seen, rank)
        num_inversions += num_smaller
        seen.insert(num_smaller, rank)
    return num_inversions
