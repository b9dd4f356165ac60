"""How good is a ranking? Metrics against relevance judgements, with intervals over queries.

Metrics are those of ir_measures (MacAvaney et al., ECIR 2022), computed by trec_eval where it has
them. Means are over all judged queries, as trec_eval -c: one without results counts 0. Unjudged
documents count as not relevant.

Which order is evaluated: a Parquet ranking's `rank`; of scored pairs the order that `rank` gives
them; of a TREC run that of trec_eval (see readers.trec). So the numbers are those that trec_eval
prints for the same file, ties included.

Intervals are percentile bootstrap intervals: queries are drawn with replacement 10,000 times, the
same ones for both runs and all metrics. The p value of a difference is that of a two-sided paired
t-test over queries (both: Smucker, Allan and Carterette, CIKM 2007).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import numpy.typing as npt

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.database import DEFAULT_MEMORY_GIB, fetch_rows, open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.trec import Qrels, read_qrels
from rgpt_batch.output.scored_files import column_names, find_files, is_parquet
from rgpt_batch.ranking.tables import load_pairs, load_run
from rgpt_batch.storage.written_files import replacing

if TYPE_CHECKING:
    import ir_measures

DEFAULT_METRICS = "nDCG@10,RR@10,R@100,AP"
NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95

_SEED = 0
# Query ids that one block of resamples draws; bounds memory, changes no result.
_BLOCK_DRAWS = 2**20
_QUERIES_PER_CALL = 500

Values = npt.NDArray[np.float64]
Database = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


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
    """

    query_ids: tuple[str, ...]
    num_queries_without_results: int
    metrics: tuple[MetricResult, ...]
    per_query: Values
    baseline_per_query: Values | None


def evaluate(
    run: Location,
    qrels_file: Location,
    *,
    baseline: Location | None = None,
    metrics: str = DEFAULT_METRICS,
    memory_gib: float = DEFAULT_MEMORY_GIB,
    temp_folder: Location | None = None,
) -> Evaluation:
    """Evaluate a TREC run, a Parquet ranking or scored pairs.

    Args:
        run: A TREC run, or a Parquet file, folder or pattern.
        qrels_file: Judgements in the format of TREC or BEIR.
        baseline: Another run, to compare with.
        metrics: Names as ir_measures writes them, separated by commas.
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
    evaluator, columns = _evaluator(metrics, qrels)
    values, num_missing = _measure(as_location(run, "run"), evaluator, columns, query_ids, database)
    baseline_values = None
    if baseline is not None:
        baseline = as_location(baseline, "baseline")
        baseline_values, _ = _measure(baseline, evaluator, columns, query_ids, database)
    return Evaluation(
        query_ids=query_ids,
        num_queries_without_results=num_missing,
        metrics=tuple(_summarise(list(map(str, columns)), values, baseline_values)),
        per_query=values,
        baseline_per_query=baseline_values,
    )


def _evaluator(
    metrics: str, qrels: Qrels
) -> tuple[ir_measures.Evaluator, dict[ir_measures.Measure, int]]:
    """Return what computes the metrics, and each metric's column in the order asked for."""
    try:
        import ir_measures
    except ImportError as error:
        raise ConfigError(
            "evaluating needs ir-measures. Install it: pip install 'rgpt-batch[eval]'."
        ) from error
    # These compute in this process; others start Perl or Java, or need ids that are numbers.
    provider = ir_measures.providers.FallbackProvider(
        [ir_measures.pytrec_eval, ir_measures.msmarco, ir_measures.judged]
    )
    # The commas between parentheses do not part metrics.
    names = [name.strip() for name in re.split(r",(?![^(]*\))", metrics) if name.strip()]
    try:
        measures = dict.fromkeys(ir_measures.parse_measure(name) for name in names)
        if not measures:
            raise ValueError("names no metric")
        evaluator = provider.evaluator(list(measures), qrels)
    except (NameError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ConfigError(
            f"--metrics '{metrics}': {error}. Names are those of ir_measures, upper and lower case "
            f"count, e.g. {DEFAULT_METRICS},P@5,AP(rel=2)."
        ) from error
    return evaluator, {measure: i for i, measure in enumerate(measures)}


def _measure(
    path: str,
    evaluator: ir_measures.Evaluator,
    columns: dict[ir_measures.Measure, int],
    query_ids: Sequence[str],
    database: Database,
) -> tuple[Values, int]:
    """Return the metrics, shape (num_queries, num_metrics), and how many queries lack results."""
    rows = {query_id: i for i, query_id in enumerate(query_ids)}
    values = np.zeros((len(rows), len(columns)))
    num_found = 0
    rankings = _read_rankings(path, query_ids, database)
    while chunk := dict(islice(rankings, _QUERIES_PER_CALL)):
        num_found += len(chunk)
        for metric in evaluator.iter_calc(chunk):
            # Queries outside of the chunk come with a default value.
            if metric.query_id in chunk:
                values[rows[metric.query_id], columns[metric.measure]] = metric.value
    if not num_found:
        raise ConfigError(
            f"{path}: none of its queries is judged. Compare its query ids with those of the "
            f"qrels, e.g. '{query_ids[0]}'."
        )
    return values, len(rows) - num_found


def _read_rankings(
    path: str, query_ids: Sequence[str], database: Database
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield judged queries with their documents and strictly decreasing scores.

    Tools differ in how they order equal scores, so that none is left to choose.
    """
    with database() as connection:
        order = "score DESC NULLS LAST, doc_id"
        if not is_parquet(path):
            load_run(connection, "run", path)
            order = "score::FLOAT DESC, doc_id DESC"
        else:
            files = find_files([path])
            score = "score"
            names = column_names(files[0])
            # Scored pairs may have passed a first stage's rank through.
            if "rank" in names and "rejection" not in names:
                score, order = "rank", "score, doc_id"
            load_pairs(connection, "run", files, score=score, query_ids=query_ids)
        result = connection.execute(
            "SELECT query_id, doc_id FROM run WHERE query_id IN (SELECT unnest($query_ids)) "
            f"ORDER BY query_id, {order}",
            {"query_ids": list(query_ids)},
        )
        for query_id, rows in groupby(fetch_rows(result), key=itemgetter(0)):
            yield query_id, {doc_id: -float(rank) for rank, (_, doc_id) in enumerate(rows)}


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
