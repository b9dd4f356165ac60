"""How good the ranking is, query by query: what ranking.evaluate finds, and queries' texts."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from rgpt_batch.database import quote_name
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.ranking.evaluate import Evaluation, evaluate

NUM_QUERIES_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryChange:
    """What the job's order changes for one query, by the first metric.

    Attributes:
        text: None where neither output nor input tell it.
    """

    query_id: str
    text: str | None
    baseline: float
    run: float

    @property
    def difference(self) -> float:
        """Run minus baseline."""
        return self.run - self.baseline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quality:
    """The evaluation, and with a baseline the queries that change.

    Attributes:
        differences: (query id, run minus baseline) by the first metric for all queries, worst
            first; empty without a baseline.
        gains: Queries that gain most, best first.
        losses: Queries that lose most, worst first.
    """

    qrels: str
    baseline: str | None
    evaluation: Evaluation
    differences: tuple[tuple[str, float], ...]
    gains: tuple[QueryChange, ...]
    losses: tuple[QueryChange, ...]


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
    found = evaluate(
        output,
        qrels,
        baseline=baseline,
        baseline_score_column=baseline_score_column,
        metrics=metrics,
        memory_gib=memory_gib,
        temp_folder=temp_folder,
    )
    changes = _changes(found)
    worst = [change for change in changes[:NUM_QUERIES_SHOWN] if change[1] < 0]
    best = [change for change in changes[::-1][:NUM_QUERIES_SHOWN] if change[1] > 0]
    texts = query_texts(connection, files, manifest, [query_id for query_id, *_ in best + worst])

    def described(chosen: Sequence[tuple[str, float, float]]) -> tuple[QueryChange, ...]:
        return tuple(
            QueryChange(
                query_id=query_id,
                text=texts.get(query_id),
                baseline=run - difference,
                run=run,
            )
            for query_id, difference, run in chosen
        )

    return Quality(
        qrels=qrels,
        baseline=baseline,
        evaluation=found,
        differences=tuple((query_id, difference) for query_id, difference, _ in changes),
        gains=described(best),
        losses=described(worst),
    )


def _changes(found: Evaluation) -> list[tuple[str, float, float]]:
    """Return (query id, difference, value of the run) by the first metric, worst first."""
    if found.baseline_per_query is None:
        return []
    values = found.per_query[:, 0]
    differences = values - found.baseline_per_query[:, 0]
    rows = zip(found.query_ids, differences.tolist(), values.tolist(), strict=True)
    return sorted(rows, key=lambda row: (row[1], row[0]))


def query_texts(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[CommittedFile],
    manifest: Manifest,
    query_ids: Sequence[str],
) -> dict[str, str]:
    """Find the texts of some queries: in the output if they were passed through, else in the input.

    Texts are a help to the reader: where the input is gone or damaged, there are none.
    """
    columns = manifest.columns
    if columns.query in columns.pass_through:
        query_id, paths = "query_id", [file.path for file in files]
    else:
        query_id = columns.query_id
        shards = dict.fromkeys(s.path for unit in manifest.units for s in unit.segments)
        paths = list(filter(os.path.isfile, shards))
    query = quote_name(columns.query)
    if not paths or not query_ids:
        return {}
    try:
        rows = connection.execute(
            f"SELECT {quote_name(query_id)}::VARCHAR AS id, min({query}) "
            "FROM read_parquet($files, hive_partitioning = false) "
            f"WHERE id IN (SELECT unnest($query_ids)) AND trim({query}) <> '' GROUP BY id",
            {"files": [glob.escape(path) for path in paths], "query_ids": list(query_ids)},
        ).fetchall()
    except duckdb.Error:
        return {}
    return dict(rows)
