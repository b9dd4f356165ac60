"""Inputs whose sizes are an attack, or a mistake: memory stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.jobs import Score

WritePairs = Callable[..., Path]
MEGABYTE = 2**20


@pytest.fixture
def huge_cell(write_pairs: WritePairs) -> Path:
    """A file of some kilobytes with a document of 40 MB between two small ones."""
    pairs = [("q", "small"), ("q", "x" * 40 * MEGABYTE), ("q", "small")]
    path = write_pairs(pairs, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < MEGABYTE
    return path


def test_a_text_that_is_too_large_is_rejected_and_the_others_are_scored(
    score_with_fake: Score, huge_cell: Path
) -> None:
    scored = score_with_fake(huge_cell)
    assert scored.column("rejection") == [None, "TEXT_TOO_LARGE", None]
    assert scored.column("score")[0] == scored.column("score")[2] is not None
    assert scored.summary.exit_code == 0


_READ = """
import os, resource, sys
from rgpt_batch.config.options import InputConfig, UnitsConfig
from rgpt_batch.errors import ShardError
from rgpt_batch.input.inspect import inspect_shards
from rgpt_batch.planning.units import plan_units
from rgpt_batch.input.pairs import read_pairs

shards = inspect_shards([sys.argv[1]], InputConfig(), ())
(used,) = (int(line.split()[1]) for line in open("/proc/self/status") if "VmSize" in line)
limit = used * 1024 + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for unit in plan_units(shards, UnitsConfig(max_rows=1)):
    try:
        for batch in read_pairs(unit, shards[0].columns, source=False):
            print(*(getattr(pair, "reason", "row") for pair in batch.pairs))
    except ShardError as error:
        print(error)
    except MemoryError:
        print("not enough memory for Python's copy")
# Threads that could not start make the interpreter's own end a crash.
sys.stdout.flush()
os._exit(0)
"""


def read_with(path: Path, num_bytes: int) -> list[str]:
    """Read a shard in a process that may take so much more memory than after planning."""
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path), str(num_bytes)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        # Arrow's own allocator takes a gigabyte of addresses ahead of need: no limit would bite.
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_too_little_memory_for_a_row_is_an_error_and_not_damage(huge_cell: Path) -> None:
    said = read_with(huge_cell, 38 * MEGABYTE)
    assert len(said) == 3
    assert "not enough memory" in said[1]
    # They may stand on one page with it.
    assert all(row == "row" or "not enough memory" in row for row in said)


def test_reading_needs_no_threads_that_might_not_start(write_pairs: WritePairs) -> None:
    # Less than the stack of one.
    assert read_with(write_pairs(10), 7 * MEGABYTE) == ["row"] * 10


def test_a_footer_of_ten_thousand_columns_takes_little_memory(tmp_path: Path) -> None:
    texts = {name: ["x"] for name in ("query_id", "doc_id", "query", "document")}
    columns = {f"column_{index}": ["x"] for index in range(10_000)}
    pq.write_table(pa.table({**columns, **texts}), tmp_path / "wide.parquet")
    assert read_with(tmp_path / "wide.parquet", 200 * MEGABYTE) == ["row"]
