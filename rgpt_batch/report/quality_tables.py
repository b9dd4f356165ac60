"""The tables of a report on quality; see tables."""

from __future__ import annotations

from collections.abc import Sequence

from rgpt_batch.ranking.estimates import Estimate, MetricResult
from rgpt_batch.report.fusion import FusedRanking
from rgpt_batch.report.numbers import DASH, brief, number, p_value, signed
from rgpt_batch.report.quality import QueryChange, TopDocument
from rgpt_batch.report.tables import (
    Cell,
    Column,
    Content,
    Table,
    name_column,
    number_columns,
    table,
)


def metrics(results: Sequence[MetricResult]) -> Table:
    """Means with their intervals, and with a baseline the paired differences."""
    rows: list[list[Content]] = []
    for result in results:
        row: list[Content] = [result.metric, _plain(result.run)]
        if result.baseline and result.difference:
            row += [_plain(result.baseline), _paired(result.difference), p_value(result.p_value)]
        rows.append(row)
    heads = ("Run", "Baseline", "Difference", "p") if results[0].baseline else ("Run",)
    return table([name_column("Metric"), *number_columns(*heads)], rows)


def fused(rankings: Sequence[FusedRanking]) -> Table:
    """The first metric of rankings with the first stage, each against the job's own order."""
    rows: list[list[Content]] = []
    for ranking in rankings:
        result = ranking.metrics[0]
        if result.baseline and result.difference:
            if not rows:
                rows.append(["score alone, as above", _plain(result.baseline), DASH, DASH])
            rows.append(
                [
                    ranking.name,
                    _plain(result.run),
                    _paired(result.difference),
                    p_value(result.p_value),
                ]
            )
    metric = rankings[0].metrics[0].metric
    return table(
        [name_column("Ranking by"), *number_columns(metric, "Difference to the score alone", "p")],
        rows,
    )


def _plain(estimate: Estimate) -> Cell:
    interval = f"[{number(estimate.low, 4)}, {number(estimate.high, 4)}]"
    return Cell(number(estimate.mean, 4), interval)


def _paired(estimate: Estimate) -> Cell:
    return Cell(signed(estimate.mean), f"[{signed(estimate.low)}, {signed(estimate.high)}]")


def changes(queries: Sequence[QueryChange]) -> Table:
    """Queries that gain or lose."""
    return table(
        [
            Column(head="Query", style="text"),
            Column(head="Id", style="code"),
            *number_columns("Baseline", "Run", "Difference"),
        ],
        (
            [
                brief(query.text),
                brief(query.query_id),
                number(query.baseline, 4),
                number(query.run, 4),
                signed(query.difference),
            ]
            for query in queries
        ),
    )


def top_documents(documents: Sequence[TopDocument]) -> Table:
    """The beginning of a ranking."""
    return table(
        [
            *number_columns("Rank"),
            Column(head="Judged", style="word"),
            Column(head="Document", style="text"),
        ],
        (
            [
                str(document.rank),
                _judgement(document.relevance),
                Cell(brief(document.doc_id), "" if document.text is None else brief(document.text)),
            ]
            for document in documents
        ),
    )


def _judgement(relevance: int | None) -> str:
    if relevance is None:
        return "not judged"
    return f"relevant, {relevance}" if relevance > 0 else "not relevant"
