"""How good is a ranking? Metrics against relevance judgements, with intervals over queries.

Metrics are those of ir_measures (MacAvaney et al., ECIR 2022), computed by trec_eval where it has
them. Means are over all judged queries, as trec_eval -c: one without results counts 0. Unjudged
documents count as not relevant.

Which order is evaluated, ties included, is told in ranking.rankings: trec_eval's, so that the
numbers are those that it prints for the same file. Where equal scores stand on both sides of a
metric's cut, the ids of the documents decide, and that is counted.

Intervals are percentile bootstrap intervals: queries are drawn with replacement 10,000 times, the
same ones for both runs and all metrics. The p value of a difference is that of a two-sided paired
t-test over queries (both: Smucker, Allan and Carterette, CIKM 2007).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.database import DEFAULT_MEMORY_GIB, open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.trec import read_qrels
from rgpt_batch.ranking.metrics import DEFAULT_METRICS, cutoff, open_evaluator
from rgpt_batch.ranking.rankings import Database, RankingSource, read_rankings
from rgpt_batch.storage.written_files import replacing

if TYPE_CHECKING:
    import ir_measures

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95

_SEED = 0
# Query ids that one block of resamples draws; bounds memory, changes no result.
_BLOCK_DRAWS = 2**20
_QUERIES_PER_CALL = 500

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over queries and its bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One metric of a run, and of a baseline where there is one.

    Attributes:
        difference: Run minus baseline.
        p_value: Of the difference; None for fewer than two queries.
    """

    metric: str
    run: Estimate
    baseline: Estimate | None = None
    difference: Estimate | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        query_ids: The judged queries.
        num_queries_without_results: Judged queries that the run lacks.
        metrics: In the order asked for.
        per_query: Values of the run, shape (num_queries, num_metrics).
        baseline_per_query: The same of the baseline.
        num_tied_queries: By the cut of a metric: queries with equal scores on both sides of it.
        baseline_num_tied_queries: The same of the baseline.
    """

    query_ids: tuple[str, ...]
    num_queries_without_results: int
    metrics: tuple[MetricResult, ...]
    per_query: Values
    baseline_per_query: Values | None
    num_tied_queries: Mapping[int, int]
    baseline_num_tied_queries: Mapping[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """Values, shape (num_queries, num_metrics), and the counts that Evaluation has."""

    values: Values
    num_missing: int
    num_tied: Mapping[int, int]


def evaluate(
    run: Location,
    qrels_file: Location,
    *,
    baseline: Location | None = None,
    metrics: str = DEFAULT_METRICS,
    score_column: str | None = None,
    baseline_score_column: str | None = None,
    memory_gib: float = DEFAULT_MEMORY_GIB,
    temp_folder: Location | None = None,
) -> Evaluation:
    """Evaluate a TREC run, a Parquet ranking or scored pairs.

    Args:
        run: A TREC run, or a Parquet file, folder or pattern.
        qrels_file: Judgements in the format of TREC or BEIR.
        baseline: Another run, to compare with.
        metrics: Names as ir_measures writes them, separated by commas.
        score_column: The column of the run's Parquet to rank by; see RankingSource.
        baseline_score_column: That of the baseline's.
        memory_gib: What DuckDB may hold in memory.
        temp_folder: Where DuckDB puts what does not fit.

    Raises:
        ConfigError: A metric is unknown, a package is missing, or no judged query has results.
        ShardError: A file cannot be used.
    """
    database = functools.partial(
        open_database,
        memory_gib,
        None if temp_folder is None else as_location(temp_folder, "temp_folder"),
    )
    qrels = read_qrels(as_location(qrels_file, "qrels_file"))
    query_ids = tuple(sorted(qrels))
    evaluator, measures = open_evaluator(metrics, qrels)
    source = RankingSource(
        path=as_location(run, "run"), score_column=score_column, option="--score-column"
    )
    found = _measure(source, evaluator, measures, query_ids, database)
    base = None
    if baseline is not None:
        source = RankingSource(
            path=as_location(baseline, "baseline"),
            score_column=baseline_score_column,
            option="--baseline-score-column",
        )
        base = _measure(source, evaluator, measures, query_ids, database)
    names = list(map(str, measures))
    return Evaluation(
        query_ids=query_ids,
        num_queries_without_results=found.num_missing,
        metrics=tuple(_summarise(names, found.values, base.values if base else None)),
        per_query=found.values,
        baseline_per_query=base.values if base else None,
        num_tied_queries=found.num_tied,
        baseline_num_tied_queries=base.num_tied if base else None,
    )


def _measure(
    source: RankingSource,
    evaluator: ir_measures.Evaluator,
    measures: Sequence[ir_measures.Measure],
    query_ids: Sequence[str],
    database: Database,
) -> _Measured:
    rows = {query_id: i for i, query_id in enumerate(query_ids)}
    columns = {measure: i for i, measure in enumerate(measures)}
    values = np.zeros((len(rows), len(columns)))
    cuts = {cut for measure in measures if (cut := cutoff(measure)) is not None}
    num_tied = dict.fromkeys(sorted(cuts), 0)
    num_found = 0
    rankings = read_rankings(source, query_ids, database)
    while chunk := list(islice(rankings, _QUERIES_PER_CALL)):
        num_found += len(chunk)
        for cut in num_tied:
            num_tied[cut] += sum(ranking.is_tied_at(cut) for ranking in chunk)
        # Tools differ in how they order equal scores, so that none is left to choose.
        ordered = {
            ranking.query_id: {doc_id: -float(rank) for rank, doc_id in enumerate(ranking.doc_ids)}
            for ranking in chunk
        }
        for metric in evaluator.iter_calc(ordered):
            # Queries outside of the chunk come with a default value.
            if metric.query_id in ordered:
                values[rows[metric.query_id], columns[metric.measure]] = metric.value
    if not num_found:
        raise ConfigError(
            f"{source.path}: none of its queries is judged. Compare its query ids with those of "
            f"the qrels, e.g. '{query_ids[0]}'."
        )
    return _Measured(values=values, num_missing=len(rows) - num_found, num_tied=num_tied)


def _summarise(
    names: Sequence[str], values: Values, baseline_values: Values | None
) -> Iterator[MetricResult]:
    resamples = bootstrap_means(values)
    baseline_resamples = None if baseline_values is None else bootstrap_means(baseline_values)
    for i, name in enumerate(names):
        result = MetricResult(metric=name, run=_estimate(values[:, i], resamples[:, i]))
        if baseline_values is not None and baseline_resamples is not None:
            differences = values[:, i] - baseline_values[:, i]
            result = replace(
                result,
                baseline=_estimate(baseline_values[:, i], baseline_resamples[:, i]),
                difference=_estimate(differences, resamples[:, i] - baseline_resamples[:, i]),
                p_value=p_value(differences),
            )
        yield result


def bootstrap_means(values: Values) -> Values:
    """Return means over queries drawn with replacement, shape (NUM_RESAMPLES, num_metrics).

    The draws depend on the number of queries alone, so that those of two runs are paired.

    Args:
        values: Shape (num_queries, num_metrics).
    """
    generator = np.random.default_rng(_SEED)
    num_queries = len(values)
    block = max(1, _BLOCK_DRAWS // num_queries)
    means = [
        values[generator.integers(num_queries, size=(size, num_queries))].mean(axis=1)
        for size in (min(block, NUM_RESAMPLES - first) for first in range(0, NUM_RESAMPLES, block))
    ]
    return np.concatenate(means)


def _estimate(values: Values, resamples: Values) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resamples, [tail, 1 - tail])
    return Estimate(mean=float(values.mean()), low=float(low), high=float(high))


def p_value(differences: Values) -> float | None:
    """Return the p value of a two-sided paired t-test; None for fewer than two queries."""
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        # Without any variance the statistic is 0 / 0 or infinite.
        return 1.0 if differences[0] == 0 else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def write_per_query(evaluation: Evaluation, path: Location) -> None:
    """Write a tab-separated table: one line per judged query, one column per metric and run.

    Raises:
        ConfigError: The file cannot be written.
    """
    names = [result.metric for result in evaluation.metrics]
    values = evaluation.per_query
    if evaluation.baseline_per_query is not None:
        names += [f"{name} baseline" for name in names]
        values = np.hstack([values, evaluation.baseline_per_query])
    with replacing(path) as file, file.open("w", encoding="utf-8") as stream:
        stream.write("\t".join(["query_id", *names]) + "\n")
        for query_id, row in zip(evaluation.query_ids, values, strict=True):
            stream.write("\t".join([query_id, *(f"{value:.6f}" for value in row)]) + "\n")
