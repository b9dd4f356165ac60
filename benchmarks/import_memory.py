"""Does the peak memory of an import depend on the number of pairs?

    python benchmarks/import_memory.py [--pairs 1000000 10000000] [--memory-gib 1]

Writes a TREC run (1,000 candidates per query), a corpus in Parquet and queries in TSV with random
ids and texts, imports them with `import trec`, and records the peak resident memory of the process
and the peak size of everything below the working folder without the input. The table goes to
standard output and to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_CANDIDATES = 1000
_DOCUMENT_WORDS = 40
_DOCUMENTS_PER_GROUP = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one import took; sizes in MB."""

    peak_memory: float
    peak_disk: float
    output: float
    seconds: float
    cpu_seconds: float


def write_input(folder: Path, num_pairs: int) -> None:
    """Write run.trec, corpus.parquet (a document for every ten pairs) and queries.tsv."""
    chooser = np.random.default_rng(num_pairs)
    letters = random.Random(num_pairs)
    words = ["".join(letters.choices("etaoinshrdlu", k=letters.randint(2, 9))) for _ in range(5000)]
    num_documents = max(_CANDIDATES, num_pairs // 10)
    num_queries = num_pairs // _CANDIDATES
    schema = pa.schema([("docno", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(folder / "corpus.parquet", schema, compression="zstd") as writer:
        for first in range(0, num_documents, _DOCUMENTS_PER_GROUP):
            numbers = range(first, min(num_documents, first + _DOCUMENTS_PER_GROUP))
            chosen = chooser.integers(0, len(words), (len(numbers), _DOCUMENT_WORDS))
            texts = [" ".join([words[index] for index in row]) for row in chosen]
            writer.write_table(
                pa.table({"docno": [f"{n:08d}" for n in numbers], "text": texts}, schema=schema)
            )
    with (folder / "queries.tsv").open("w") as queries, (folder / "run.trec").open("w") as run:
        for query in range(num_queries):
            text = " ".join(letters.choices(words, k=6))
            queries.write(f"q{query}\t{text}\n")
            documents = chooser.choice(num_documents, _CANDIDATES, replace=False)
            run.writelines(
                f"q{query} Q0 {document:08d} {rank} {100 / rank:.6f} bm25\n"
                for rank, document in enumerate(documents, 1)
            )


def measure(folder: Path, memory_gib: float) -> Measurement:
    """Run the import in a process of its own."""
    work = folder / "work"
    work.mkdir()
    command = [
        *(sys.executable, "-m", "rgpt_batch", "import", "trec", "--quiet"),
        *("--run", folder / "run.trec", "--queries", folder / "queries.tsv"),
        *("--corpus", folder / "corpus.parquet", "--output", work / "pairs"),
        *("--memory-gib", str(memory_gib)),
    ]
    started = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL)
    done = threading.Event()
    sizes: list[int] = [0]
    watcher = threading.Thread(target=_watch, args=(work, done, sizes))
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    if status:
        raise SystemExit(f"the import failed with status {status}")
    return Measurement(
        peak_memory=usage.ru_maxrss / 1000,
        peak_disk=max(sizes) / 1e6,
        output=_size(work) / 1e6,
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
    )


def _watch(folder: Path, done: threading.Event, sizes: list[int]) -> None:
    while not done.wait(0.5):
        sizes.append(_size(folder))


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                # Spilled files have holes; blocks are what they take.
                total += os.stat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--memory-gib", type=float, default=1.0)
    options = parser.parse_args(arguments)
    lines = [
        "# Peak memory of an import against the number of pairs",
        "",
        f"{time.strftime('%Y-%m-%d')}, {len(os.sched_getaffinity(0))} cores, "
        f"{platform.machine()}; `import trec --memory-gib {options.memory_gib:g}`; documents of "
        f"{_DOCUMENT_WORDS} words, ten candidates per document.",
        "",
        "| pairs | peak memory | peak disk, temporary and output | output | time | CPU time |",
        "|---|---|---|---|---|---|",
    ]
    for num_pairs in options.pairs:
        with tempfile.TemporaryDirectory() as name:
            write_input(Path(name), num_pairs)
            found = measure(Path(name), options.memory_gib)
        lines.append(
            f"| {num_pairs:,} | {found.peak_memory:,.0f} MB | {found.peak_disk:,.0f} MB | "
            f"{found.output:,.0f} MB | {found.seconds:.0f} s | {found.cpu_seconds:.0f} s |"
        )
    table = "\n".join(lines) + "\n"
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{time.strftime('%Y-%m-%d')}-import-memory.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
