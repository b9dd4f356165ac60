"""Does ranking stay within its memory, however many pairs there are?

    python benchmarks/rank_memory.py [--rows 1000000 10000000] [--memory-gib 0.5]

Writes scored files of the given numbers of rows, 1,000 pairs per query in random order over all
files, ranks each to a TREC run of depth 100, and measures the peak resident memory of the process.
The table goes to standard output and to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RESULTS = Path(__file__).parent / "results"
_PAIRS_PER_QUERY = 1000
_ROWS_PER_FILE = 500_000
_TOP_K = 100

_COMMAND = (
    "import sys; from rgpt_batch.ranking.rank import rank; "
    f"rank([sys.argv[1]], sys.argv[2], top_k={_TOP_K}, run_format='trec', "
    "memory_gib=float(sys.argv[3]), temp_folder=sys.argv[1])"
)


def write_scored(folder: Path, num_rows: int) -> None:
    """Write scored files; every query's pairs are spread over all of them."""
    generator = np.random.default_rng(0)
    # An odd multiplier visits every row once, far from its neighbours.
    rows = (np.arange(num_rows) * 7_368_787) % num_rows
    for first in range(0, num_rows, _ROWS_PER_FILE):
        part = rows[first : first + _ROWS_PER_FILE]
        table = pa.table(
            {
                "query_id": [f"q{row // _PAIRS_PER_QUERY:07d}" for row in part],
                "doc_id": [f"d{row:010d}" for row in part],
                "score": -generator.gamma(4.0, 1.0, len(part)).astype(np.float32),
            }
        )
        pq.write_table(table, folder / f"scored-{first:010d}.parquet", compression="zstd")


def measure(folder: Path, memory_gib: float) -> tuple[float, float]:
    """Rank the files; returns peak resident memory in MB, and seconds."""
    started = time.perf_counter()
    arguments = [sys.executable, "-c", _COMMAND, str(folder), str(folder / "run.trec")]
    process = os.posix_spawn(sys.executable, [*arguments, str(memory_gib)], os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"ranking failed with status {status}")
    return usage.ru_maxrss / 1000, time.perf_counter() - started


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--memory-gib", type=float, default=0.5)
    arguments = parser.parse_args()
    lines = [
        "# Peak memory of ranking against the number of pairs",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}; DuckDB may "
        f"use {arguments.memory_gib:g} GiB, top {_TOP_K} of {_PAIRS_PER_QUERY:,} pairs per query.",
        "",
        "| pairs | peak memory of the process | time |",
        "|---|---|---|",
    ]
    for num_rows in arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            write_scored(Path(name), num_rows)
            peak, seconds = measure(Path(name), arguments.memory_gib)
        lines.append(f"| {num_rows:,} | {peak:,.0f} MB | {seconds:.0f} s |")
    table = "\n".join(lines) + "\n"
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{time.strftime('%Y-%m-%d')}-rank-memory.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
