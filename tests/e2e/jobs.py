"""The job that most tests run, and what the fixtures that run commands are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.e2e.processes import Process, rgpt_batch

Command = list[str | Path]
Start = Callable[..., Process]
Finish = Callable[..., tuple[int, str]]
ReadStatus = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """An input and a configuration with the fake engine.

    Attributes:
        slow: Options that stretch the job to some five seconds of engine time.
    """

    pairs: Path
    config: Path
    num_rows: int = 96
    num_units: int = 24
    num_rejected: int = 3
    slow: tuple[str, ...] = ("-o", "engine.fake_seconds_per_pair=0.05")

    def score(self, output: Path, *options: str | Path) -> Command:
        """The command that scores it with the local executor, or what the options say."""
        return rgpt_batch(
            "score", "-c", self.config, "-i", self.pairs, "--output", output, *options
        )


def write_shard(path: Path, rows: range, *, null_rows: tuple[int, ...] = ()) -> None:
    """Write pairs in row groups of 16; the documents have different lengths."""
    table = pa.table(
        {
            "query_id": [f"q{row % 7}" for row in rows],
            "doc_id": [f"d{row}" for row in rows],
            "query": [None if row in null_rows else f"what is number {row % 7}" for row in rows],
            "document": [f"Number {row} is told " + "again and " * (row % 11) for row in rows],
            "rank": pa.array(list(rows), pa.int32()),
        },
        schema=pa.schema(
            [
                ("query_id", pa.string()),
                ("doc_id", pa.string()),
                ("query", pa.string()),
                ("document", pa.string()),
                ("rank", pa.int32()),
            ]
        ),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=16)


def write_job(folder: Path, tokenizer: Path, **settings: Any) -> Job:
    """Write the job's shards and configuration below a folder."""
    job = Job(pairs=folder / "pairs", config=folder / "config.yaml")
    write_shard(job.pairs / "pairs-0.parquet", range(48), null_rows=(3, 20))
    write_shard(job.pairs / "pairs-1.parquet", range(48, 96), null_rows=(90,))
    config = {
        "model": {"name": str(tokenizer)},
        "protocol": {"max_length": 40},
        "engine": {"method": "fake"},
        "units": {"max_rows": 4},
        "output": {"pass_through": ["rank"], "query_token_logprobs": True, "source": True},
        "executor": {"kind": "local"},
        **settings,
    }
    job.config.write_text(yaml.safe_dump(config))
    return job
