"""An input of twenty pairs, and a way to tell copied scores from computed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.jobs import Scored

PAIRS = [(f"query {i % 3}", f"document {i} of many") for i in range(20)]
# What mark() adds to every score. The fake engine's scores are multiples of 0.001.
MARK = -100.0

Run = Callable[..., Scored]


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
