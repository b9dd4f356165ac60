"""How good the ranking is, query by query: what ranking.evaluate finds, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from rgpt_batch.importing.readers.trec import Qrels, read_qrels
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.ranking.estimates import MetricResult
from rgpt_batch.ranking.evaluate import Evaluation, evaluate_judged
from rgpt_batch.report.fusion import FusedRanking, first_stage_column, fused_rankings
from rgpt_batch.report.texts import Texts

NUM_QUERIES_SHOWN = 10
# Of so many queries that lose, so many documents of both rankings are shown.
NUM_QUERIES_OPENED = 5
NUM_DOCUMENTS_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TopDocument:
    """A document near the top of a ranking.

    Attributes:
        rank: From 1.
        relevance: As judged; None where nobody has judged it.
        text: None where neither output nor input tell it.
    """

    rank: int
    doc_id: str
    relevance: int | None
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryChange:
    """What the job's order changes for one query, by the first metric.

    Attributes:
        text: None where neither output nor input tell it.
        run_top: Best first; empty for queries that are not opened.
        baseline_top: The same of the baseline.
    """

    query_id: str
    text: str | None
    baseline: float
    run: float
    run_top: tuple[TopDocument, ...] = ()
    baseline_top: tuple[TopDocument, ...] = ()

    @property
    def difference(self) -> float:
        """Run minus baseline."""
        return self.run - self.baseline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quality:
    """The evaluation, and with a baseline the queries that change.

    Attributes:
        metrics: Those that tell something.
        same: Of recall: what no query gains or loses, since a reranking keeps the candidates.
        differences: (query id, run minus baseline) by the first metric for all queries, worst
            first; empty without a baseline.
        gains: Queries that gain most, best first.
        losses: Queries that lose most, worst first.
        fused: Rankings with the first stage's score; empty where there is none.
    """

    qrels: str
    baseline: str | None
    evaluation: Evaluation
    metrics: tuple[MetricResult, ...]
    same: tuple[MetricResult, ...]
    differences: tuple[tuple[str, float], ...]
    gains: tuple[QueryChange, ...]
    losses: tuple[QueryChange, ...]
    fused: tuple[FusedRanking, ...]


def assess(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[CommittedFile],
    manifest: Manifest,
    output: str,
    *,
    qrels: str,
    baseline: str | None,
    baseline_score_column: str | None,
    metrics: str,
    memory_gib: float,
    temp_folder: str | None,
) -> Quality:
    """Evaluate a complete output; memory and folder as for evaluation.evaluate.

    Raises:
        ConfigError, ShardError: See ranking.evaluate.
    """
    judgements = read_qrels(qrels)
    found = evaluate_judged(
        output,
        judgements,
        baseline=baseline,
        baseline_score_column=baseline_score_column,
        metrics=metrics,
        memory_gib=memory_gib,
        temp_folder=temp_folder,
    )
    column = first_stage_column(connection, [file.path for file in files], manifest)
    fused: tuple[FusedRanking, ...] = ()
    if column is not None:
        fused = fused_rankings(
            output,
            judgements,
            column,
            metrics=metrics,
            memory_gib=memory_gib,
            temp_folder=temp_folder,
        )
    same = tuple(result for result in found.metrics if _is_recall_of_all(result, found))
    changes = _changes(found)
    described = _Describer(found, judgements, Texts(connection, files, manifest))
    return Quality(
        qrels=qrels,
        baseline=baseline,
        evaluation=found,
        metrics=tuple(result for result in found.metrics if result not in same) or found.metrics,
        same=same if len(same) < len(found.metrics) else (),
        differences=tuple((query_id, difference) for query_id, difference, _ in changes),
        gains=described([c for c in changes[::-1][:NUM_QUERIES_SHOWN] if c[1] > 0], 0),
        losses=described([c for c in changes[:NUM_QUERIES_SHOWN] if c[1] < 0], NUM_QUERIES_OPENED),
        fused=fused,
    )


def _is_recall_of_all(result: MetricResult, found: Evaluation) -> bool:
    """Whether a metric is a recall that is the same for every query with either ranking."""
    if found.baseline_per_query is None or not result.metric.startswith(("R@", "R(", "Recall")):
        return False
    index = [each.metric for each in found.metrics].index(result.metric)
    return bool((found.per_query[:, index] == found.baseline_per_query[:, index]).all())


def _changes(found: Evaluation) -> list[tuple[str, float, float]]:
    """Return (query id, difference, value of the run) by the first metric, worst first."""
    if found.baseline_per_query is None:
        return []
    values = found.per_query[:, 0]
    differences = values - found.baseline_per_query[:, 0]
    rows = zip(found.query_ids, differences.tolist(), values.tolist(), strict=True)
    return sorted(rows, key=lambda row: (row[1], row[0]))


class _Describer:
    """Adds texts and documents to changes."""

    def __init__(self, found: Evaluation, qrels: Qrels, texts: Texts) -> None:
        self._found = found
        self._qrels = qrels
        self._texts = texts

    def __call__(
        self, changes: Sequence[tuple[str, float, float]], num_opened: int
    ) -> tuple[QueryChange, ...]:
        texts = self._texts.queries([query_id for query_id, *_ in changes])
        opened = [query_id for query_id, *_ in changes[:num_opened]]
        both = (self._found.top, self._found.baseline_top)
        tops = [{q: top.get(q, ())[:NUM_DOCUMENTS_SHOWN] for q in opened} for top in both]
        doc_ids = {doc_id for top in tops for ids in top.values() for doc_id in ids}
        documents = self._texts.documents(opened, sorted(doc_ids))

        def described(query_id: str, doc_ids: Sequence[str]) -> tuple[TopDocument, ...]:
            return tuple(
                TopDocument(
                    rank=rank,
                    doc_id=doc_id,
                    relevance=self._qrels[query_id].get(doc_id),
                    text=documents.get((query_id, doc_id)),
                )
                for rank, doc_id in enumerate(doc_ids, 1)
            )

        return tuple(
            QueryChange(
                query_id=query_id,
                text=texts.get(query_id),
                baseline=run - difference,
                run=run,
                run_top=described(query_id, tops[0].get(query_id, ())),
                baseline_top=described(query_id, tops[1].get(query_id, ())),
            )
            for query_id, difference, run in changes
        )
