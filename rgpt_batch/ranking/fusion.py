"""How a first stage's scores enter a ranking.

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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rgpt_batch.config.arguments import Location
from rgpt_batch.ranking.tables import best_first

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


def fused_scores(fusion: Fusion | None) -> str:
    """Return the SELECT of query_id, doc_id and ranking score from the table pairs."""
    if fusion is None:
        return "SELECT query_id, doc_id, score FROM pairs"
    if fusion.alpha is None:
        return _FUSED_BY_RANK
    normalized = _NORMALIZED[fusion.normalize]
    return _INTERPOLATED.format(
        alpha=f"{fusion.alpha!r}::DOUBLE",
        ql=normalized.format(x="score::DOUBLE"),
        f=normalized.format(x="first_stage_score"),
    )
