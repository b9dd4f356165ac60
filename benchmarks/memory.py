"""Does peak memory depend on the size of the input?

    python benchmarks/memory.py [--megabytes 100 1000] [--order document --memory-gib 0.25]

Writes uncompressed Parquet inputs of the given sizes, scores each with the fake engine (everything
but the model is real: reading, tokenising, building, committing), and compares the peak resident
memory of the processes. The table goes to standard output and to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_DOCUMENT_WORDS = 600
_ROWS_PER_GROUP = 5_000
_UNIT_BYTES = 16 * 2**20


def write_input(folder: Path, megabytes: int) -> int:
    """Write one shard of about `megabytes` MB; returns the number of rows."""
    chooser = random.Random(megabytes)
    words = ["".join(chooser.choices("etaoinshrdlu", k=chooser.randint(2, 9))) for _ in range(5000)]
    num_rows = 0
    path = folder / "pairs.parquet"
    schema = pa.schema(
        [(name, pa.string()) for name in ("query_id", "doc_id", "query", "document")]
    )
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        while path.stat().st_size < megabytes * 1e6:
            rows = range(num_rows, num_rows + _ROWS_PER_GROUP)
            writer.write_table(
                pa.table(
                    {
                        "query_id": [f"q{row // 100}" for row in rows],
                        "doc_id": [f"d{row}" for row in rows],
                        "query": [" ".join(chooser.choices(words, k=6)) for _ in rows],
                        "document": [
                            " ".join(chooser.choices(words, k=_DOCUMENT_WORDS)) for _ in rows
                        ],
                    },
                    schema=schema,
                )
            )
            num_rows += _ROWS_PER_GROUP
    return num_rows


def measure(model: Path, folder: Path, *options: str) -> tuple[float, float]:
    """Run the job; returns its peak resident memory in MB and its seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rgpt_batch",
            "score",
            "--quiet",
            "--executor",
            "local",
            "--input",
            str(folder / "pairs.parquet"),
            "--output",
            str(folder / "scored"),
            "--model",
            str(model),
            "-o",
            "engine.method=fake",
            "-o",
            f"units.max_bytes={_UNIT_BYTES}",
            *options,
        ],
        cwd=ROOT,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the job failed with status {status}")
    return usage.ru_maxrss / 1000, time.perf_counter() - started


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "smollm2-135m")
    parser.add_argument("--order", choices=["input", "document"], default="input")
    parser.add_argument("--memory-gib", type=float, default=2.0, help="input.join_memory_gib")
    arguments = parser.parse_args()
    options = ("--order", arguments.order, "-o", f"input.join_memory_gib={arguments.memory_gib}")
    order = "in input order"
    if arguments.order == "document":
        order = f"clustered by document with {arguments.memory_gib:g} GiB for the sort"
    lines = [
        "# Peak memory against input size",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}; fake engine, "
        f"local executor, units of {_UNIT_BYTES >> 20} MiB, three in flight; one row group is "
        f"{_ROWS_PER_GROUP:,} rows of about 4 kB; {order}.",
        "",
        "| input | rows | peak memory | against the smallest | time |",
        "|---|---|---|---|---|",
    ]
    peaks: list[float] = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as name:
            num_rows = write_input(Path(name), megabytes)
            peak, seconds = measure(arguments.model, Path(name), *options)
        peaks.append(peak)
        lines.append(
            f"| {megabytes:,} MB | {num_rows:,} | {peak:,.0f} MB | {peak / peaks[0]:.2f} | "
            f"{seconds:.0f} s |"
        )
    table = "\n".join(lines) + "\n"
    print(table)
    RESULTS.mkdir(exist_ok=True)
    kind = "memory" if arguments.order == "input" else "memory-clustered"
    (RESULTS / f"{time.strftime('%Y-%m-%d')}-{kind}.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
