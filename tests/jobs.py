"""Run whole jobs with the fake engine in this process, and read what they wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch import JobConfig, JobSummary, load_config, run_job


def fake_config(tokenizer: Path, *overrides: str) -> JobConfig:
    """A job with the fake engine; any share of rejected rows is fine."""
    return load_config(
        None,
        (
            f"model.name={tokenizer}",
            "engine.method=fake",
            "executor.kind=local",
            "output.max_rejected_fraction=1",
            *overrides,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A finished job and its output rows, in the order of the part files."""

    summary: JobSummary
    table: pa.Table
    folder: Path

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.table.to_pylist()

    def column(self, name: str) -> list[Any]:
        return self.table[name].to_pylist()


def score(config: JobConfig, inputs: Sequence[str | Path], output: Path) -> Scored:
    """Run a job to its end."""
    summary = run_job(config, [str(path) for path in inputs], str(output), quiet=True)
    return Scored(summary=summary, table=read_output(output), folder=output)


def read_output(output: Path) -> pa.Table:
    """Read all part files, in order."""
    parts = sorted(output.glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(part) for part in parts)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Damage a file in place."""
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)


def column_chunk(path: Path, row_group: int, column: str) -> tuple[int, int]:
    """Where a column chunk lies in its file: first byte and number of bytes."""
    group = pq.read_metadata(path).row_group(row_group)
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema == column:
            offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
            return min(o for o in offsets if o is not None), chunk.total_compressed_size
    raise ValueError(f"{path} has no column {column}")


Score = Callable[..., Scored]


@pytest.fixture
def score_with_fake(tiny_tokenizer: Path, tmp_path: Path) -> Score:
    """Score input files with the fake engine into a folder below tmp_path."""

    def run(*inputs: str | Path, overrides: tuple[str, ...] = (), name: str = "scored") -> Scored:
        return score(fake_config(tiny_tokenizer, *overrides), inputs, tmp_path / name)

    return run
