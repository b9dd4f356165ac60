"""An input of twenty pairs, jobs on it, and a way to tell copied scores from computed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rgpt_batch import run_job
from tests.jobs import Scored, fake_config, read_output

PAIRS = [(f"query {i % 3}", f"document {i} of many") for i in range(20)]
# What mark() adds to every score. The fake engine's scores are multiples of 0.001.
MARK = -100.0

Run = Callable[..., Scored]


@pytest.fixture
def run(tiny_tokenizer: Path, tmp_path: Path) -> Run:
    """Run a job with units of five rows, in a folder below tmp_path."""

    def run_one(
        inputs: Path, name: str, *overrides: str, reuse: Path | None = None, **options: Any
    ) -> Scored:
        summary = run_job(
            fake_config(tiny_tokenizer, "units.max_rows=5", *overrides),
            [str(inputs)],
            str(tmp_path / name),
            reuse=None if reuse is None else str(reuse),
            quiet=True,
            **options,
        )
        return Scored(summary=summary, table=read_output(tmp_path / name), folder=tmp_path / name)

    return run_one


def mark(output: Path) -> None:
    """Change every score of an output, so that a copy of it shows."""
    for part in output.glob("part-*.parquet"):
        table = pq.read_table(part)
        index = table.schema.get_field_index("score")
        changed = pc.add(table["score"], pa.scalar(MARK, pa.float32()))
        pq.write_table(
            table.set_column(index, table.schema.field(index), changed),
            part,
            write_page_checksum=True,
        )


def is_marked(scores: Sequence[float | None]) -> list[bool]:
    """Tell which scores were copied from a marked output."""
    return [score is not None and score < MARK for score in scores]
