"""What the ranking is worth together with the first stage's scores.

Half the score and half the first stage's is chosen before anything is measured: a weight that is
tuned on the judged queries would look better than it is.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.database import quote_name
from rgpt_batch.importing.readers.numerals import MAX_SCORE
from rgpt_batch.importing.readers.trec import Qrels
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.ranking.estimates import MetricResult
from rgpt_batch.ranking.evaluate import evaluate_judged
from rgpt_batch.ranking.rank import FirstStage, Fusion, rank

# What a first stage's score is usually called; the first is import's name.
USUAL_COLUMNS = ("first_stage_score", "bm25_score", "bm25")
ALPHA = 0.5

# All candidates of a query.
_ALL = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedRanking:
    """One way to rank with the first stage.

    Attributes:
        name: What it does.
        metrics: Its values as `run`, those of the job's own order as `baseline`.
    """

    name: str
    metrics: tuple[MetricResult, ...]


def first_stage_column(
    connection: duckdb.DuckDBPyConnection, paths: Sequence[str], manifest: Manifest
) -> str | None:
    """Find a column of first-stage scores that was passed through, by its usual names.

    A column that only has the name, or holds what no ranking takes, is none: nobody has asked for
    it, so it is no error either.

    Args:
        connection: See database.open_database.
        paths: Files of the output, on this machine.
        manifest: Tells which columns were passed through.
    """
    for name in USUAL_COLUMNS:
        if name not in manifest.columns.pass_through:
            continue
        kind = pq.read_schema(paths[0]).field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            continue
        column = f"{quote_name(name)}::DOUBLE"
        # NaN is larger than any number.
        num_scores, num_unfit = connection.execute(
            f"SELECT count({column}), count(*) FILTER (abs({column}) > $largest) "
            "FROM read_parquet($files, hive_partitioning = false)",
            {"files": [glob.escape(path) for path in paths], "largest": MAX_SCORE},
        ).fetchall()[0]
        if num_scores and not num_unfit:
            return name
    return None


def fused_rankings(
    output: str, qrels: Qrels, column: str, **options: Any
) -> tuple[FusedRanking, ...]:
    """Evaluate the first stage alone and two fusions, each against the job's own order.

    Args:
        output: The complete output.
        qrels: The judgements.
        column: The first stage's scores in the output.
        options: metrics, memory_gib and temp_folder of evaluate.

    Raises:
        ConfigError, ShardError: The column cannot be used.
    """

    def against_own_order(run: str, score_column: str | None = None) -> tuple[MetricResult, ...]:
        found = evaluate_judged(run, qrels, baseline=output, score_column=score_column, **options)
        return found.metrics

    first_stage = FirstStage(column=column)
    own: Mapping[str, Fusion] = {
        f"half score, half {column}, both as z-scores": Fusion(
            first_stage=first_stage, alpha=ALPHA
        ),
        "reciprocal rank fusion of both": Fusion(first_stage=first_stage, alpha=None),
    }
    alone = against_own_order(output, column)
    found = [FusedRanking(name=f"{column} alone", metrics=alone)]
    storage = {name: options[name] for name in ("memory_gib", "temp_folder")}
    with tempfile.TemporaryDirectory(prefix="rgpt-batch-", dir=options["temp_folder"]) as folder:
        target = str(Path(folder, "fused.parquet"))
        for name, fusion in own.items():
            rank(output, target, top_k=_ALL, fusion=fusion, **storage)
            found.append(FusedRanking(name=name, metrics=against_own_order(target)))
    return tuple(found)
