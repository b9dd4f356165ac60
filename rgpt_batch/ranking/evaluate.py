"""How good is a ranking? Metrics against relevance judgements, with intervals over queries.

Metrics are those of ir_measures (MacAvaney et al., ECIR 2022), computed by trec_eval where it has
them. Means are over all judged queries, as trec_eval -c: one without results counts 0. Unjudged
documents count as not relevant.

Which order is evaluated, ties included, is told in ranking.rankings: trec_eval's, so that the
numbers are those that it prints for the same file. Where equal scores stand on both sides of a
metric's cut, the ids of the documents decide, and that is counted.

Intervals and p values: see estimates.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.database import DEFAULT_MEMORY_GIB, open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.trec import Qrels, read_qrels
from rgpt_batch.ranking.estimates import MetricResult, Values, summarise
from rgpt_batch.ranking.metrics import DEFAULT_METRICS, cutoff, open_evaluator
from rgpt_batch.ranking.rankings import Database, RankingSource, read_rankings
from rgpt_batch.storage.written_files import replacing

if TYPE_CHECKING:
    import ir_measures

# Of so many documents per query the unjudged ones are counted: those that readers see.
NUM_TOP = 10

_QUERIES_PER_CALL = 500


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
        unjudged_fraction: Share of the first NUM_TOP documents of all queries that nobody has
            judged: they count as not relevant, which may do the run wrong.
        baseline_unjudged_fraction: The same of the baseline.
        top: The first NUM_TOP documents of every judged query that has results.
        baseline_top: The same of the baseline; empty where there is none.
    """

    query_ids: tuple[str, ...]
    num_queries_without_results: int
    metrics: tuple[MetricResult, ...]
    per_query: Values
    baseline_per_query: Values | None
    num_tied_queries: Mapping[int, int]
    baseline_num_tied_queries: Mapping[int, int] | None
    unjudged_fraction: float
    baseline_unjudged_fraction: float | None
    top: Mapping[str, Sequence[str]]
    baseline_top: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measured:
    """Values, shape (num_queries, num_metrics), and the counts that Evaluation has."""

    values: Values
    num_missing: int
    num_tied: Mapping[int, int]
    unjudged_fraction: float
    top: Mapping[str, Sequence[str]]


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
    return evaluate_judged(
        run,
        read_qrels(as_location(qrels_file, "qrels_file")),
        baseline=baseline,
        metrics=metrics,
        score_column=score_column,
        baseline_score_column=baseline_score_column,
        memory_gib=memory_gib,
        temp_folder=temp_folder,
    )


def evaluate_judged(
    run: Location,
    qrels: Qrels,
    *,
    baseline: Location | None = None,
    metrics: str = DEFAULT_METRICS,
    score_column: str | None = None,
    baseline_score_column: str | None = None,
    memory_gib: float = DEFAULT_MEMORY_GIB,
    temp_folder: Location | None = None,
) -> Evaluation:
    """Evaluate with judgements that were read before; otherwise see evaluate."""
    database = functools.partial(
        open_database,
        memory_gib,
        None if temp_folder is None else as_location(temp_folder, "temp_folder"),
    )
    query_ids = tuple(sorted(qrels))
    evaluator, measures = open_evaluator(metrics, qrels)
    source = RankingSource(
        path=as_location(run, "run"), score_column=score_column, option="--score-column"
    )
    found = _measure(source, evaluator, measures, qrels, database)
    base = None
    if baseline is not None:
        source = RankingSource(
            path=as_location(baseline, "baseline"),
            score_column=baseline_score_column,
            option="--baseline-score-column",
        )
        base = _measure(source, evaluator, measures, qrels, database)
    names = list(map(str, measures))
    return Evaluation(
        query_ids=query_ids,
        num_queries_without_results=found.num_missing,
        metrics=tuple(summarise(names, found.values, base.values if base else None)),
        per_query=found.values,
        baseline_per_query=base.values if base else None,
        num_tied_queries=found.num_tied,
        baseline_num_tied_queries=base.num_tied if base else None,
        unjudged_fraction=found.unjudged_fraction,
        baseline_unjudged_fraction=base.unjudged_fraction if base else None,
        top=found.top,
        baseline_top=base.top if base else {},
    )


def _measure(
    source: RankingSource,
    evaluator: ir_measures.Evaluator,
    measures: Sequence[ir_measures.Measure],
    qrels: Qrels,
    database: Database,
) -> _Measured:
    query_ids = sorted(qrels)
    rows = {query_id: i for i, query_id in enumerate(query_ids)}
    columns = {measure: i for i, measure in enumerate(measures)}
    values = np.zeros((len(rows), len(columns)))
    cuts = {cut for measure in measures if (cut := cutoff(measure)) is not None}
    num_tied = dict.fromkeys(sorted(cuts), 0)
    top: dict[str, Sequence[str]] = {}
    rankings = read_rankings(source, query_ids, database)
    while chunk := list(islice(rankings, _QUERIES_PER_CALL)):
        for cut in num_tied:
            num_tied[cut] += sum(ranking.is_tied_at(cut) for ranking in chunk)
        top |= {ranking.query_id: ranking.doc_ids[:NUM_TOP] for ranking in chunk}
        # Tools differ in how they order equal scores, so that none is left to choose.
        ordered = {
            ranking.query_id: {doc_id: -float(rank) for rank, doc_id in enumerate(ranking.doc_ids)}
            for ranking in chunk
        }
        for metric in evaluator.iter_calc(ordered):
            # Queries outside of the chunk come with a default value.
            if metric.query_id in ordered:
                values[rows[metric.query_id], columns[metric.measure]] = metric.value
    if not top:
        raise ConfigError(
            f"{source.path}: none of its queries is judged. Compare its query ids with those of "
            f"the qrels, e.g. '{query_ids[0]}'."
        )
    is_judged = [doc_id in qrels[query_id] for query_id in top for doc_id in top[query_id]]
    return _Measured(
        values=values,
        num_missing=len(rows) - len(top),
        num_tied=num_tied,
        unjudged_fraction=1 - sum(is_judged) / len(is_judged),
        top=top,
    )


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
