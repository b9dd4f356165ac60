"""Outputs to report on, all written by real jobs with the fake engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner, Result

from rgpt_batch.commands.report import report
from tests.jobs import Scored, fake_config, score

UNITS = ("units.max_rows=10",)


def write_shard(path: Path, queries: Sequence[str | None], first: int) -> Path:
    """Write pairs whose documents grow longer row by row; query i has the id q<i mod 5>."""
    table = pa.table(
        {
            "query_id": [f"q{(first + i) % 5}" for i in range(len(queries))],
            "doc_id": [f"d{first + i}" for i in range(len(queries))],
            "query": pa.array(queries, pa.string()),
            "document": [f"document {i} " + "goes on " * i for i in range(len(queries))],
            "bm25": [float(i % 9) for i in range(len(queries))],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def write_pairs(folder: Path) -> Path:
    """Write two shards: 60 rows, of which 3 are rejected; long documents do not fit 60 tokens."""
    queries: list[str | None] = [f"what is number {i % 5}" for i in range(60)]
    queries[4] = None
    queries[33] = None
    queries[47] = "  "
    write_shard(folder / "a.parquet", queries[:25], 0)
    write_shard(folder / "b.parquet", queries[25:], 25)
    return folder


def resumed_job(tokenizer: Path, folder: Path) -> Scored:
    """Run a job, lose two of its files, and run it again."""
    config = fake_config(tokenizer, *UNITS, "protocol.max_length=60", "output.pass_through=[bm25]")
    pairs = write_pairs(folder / "pairs")
    first = score(config, [pairs], folder / "scored")
    for name in ("part-000001.parquet", "part-000004.parquet", "_SUCCESS"):
        (first.folder / name).unlink()
    return score(config, [pairs], folder / "scored")


def write_report(*arguments: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(report, [str(argument) for argument in arguments])
