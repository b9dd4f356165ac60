"""How long does a job take that reuses most scores of an earlier one?

    python benchmarks/reuse.py [--rows 1000000 10000000] [--reused 0.95]

An earlier output of so many rows is written with arbitrary scores, through the same functions as a
real one. Then `rgpt-batch score --reuse` scores as many rows, of which the given share has the same
texts, with the fake engine: reading, hashing, looking up, tokenising the rest and committing are
real. For comparison some of the rows are scored without --reuse. The table goes to standard output
and to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.config.load import load_config
from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.job.plan import plan_job
from rgpt_batch.output import open_store
from rgpt_batch.output.score_file import Footer, serialize, to_table
from rgpt_batch.records import RowResult, Score
from rgpt_batch.scoring.pair_hash import pair_hashes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_ROWS_PER_SHARD = 500_000
_DOCUMENT_WORDS = 60
_WITHOUT_REUSE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of the command; sizes in MB."""

    seconds: float
    peak_memory: float
    index_size: float


def write_input(folder: Path, num_rows: int, *, changed_every: int = 0) -> None:
    """Write shards of pairs; every so many documents end with another word."""
    chooser = random.Random(0)
    words = ["".join(chooser.choices("etaoinshrdlu", k=chooser.randint(2, 9))) for _ in range(5000)]
    bodies = [" ".join(chooser.choices(words, k=_DOCUMENT_WORDS)) for _ in range(2000)]
    folder.mkdir()
    for start in range(0, num_rows, _ROWS_PER_SHARD):
        rows = range(start, min(start + _ROWS_PER_SHARD, num_rows))
        table = pa.table(
            {
                "query_id": [f"q{row // 100}" for row in rows],
                "doc_id": [f"d{row}" for row in rows],
                "query": [f"what is number {row // 100} and why" for row in rows],
                "document": [
                    f"{row} {bodies[row % len(bodies)]}"
                    + (" changed" if changed_every and row % changed_every == 0 else "")
                    for row in rows
                ],
            }
        )
        pq.write_table(
            table, folder / f"pairs-{start}.parquet", row_group_size=20_000, compression="zstd"
        )


def write_output(config: JobConfig, inputs: Path, output: Path) -> None:
    """Write what a complete job would have written, with arbitrary scores."""
    config, manifest = plan_job(config, [str(inputs)], str(output))
    store = open_store(str(output))
    store.save_manifest(manifest)
    for unit in manifest.units:
        columns: list[pa.RecordBatch] = []
        results: list[RowResult] = []
        for batch in read_pairs(unit, manifest.columns, source=False):
            columns.append(batch.columns)
            for value in pair_hashes(batch.pairs):
                score = Score(
                    value=-(len(results) + 1) / 2**16,
                    sum_logprob=-(len(results) + 1) / 2**13,
                    num_query_tokens=8,
                    num_document_tokens=90,
                    num_dropped_document_tokens=0,
                )
                results.append(RowResult(outcome=score, pair_hash=value))
        table = to_table(columns, results, hashes=True)
        footer = Footer(
            fingerprint=manifest.fingerprint,
            unit_id=unit.unit_id,
            attempt="benchmark",
            num_rows=table.num_rows,
            num_rejected={},
            model=config.model.name,
            protocol=config.protocol.name,
            engine=config.engine.method,
            versions={},
        )
        store.commit(unit.unit_id, "benchmark", serialize(table, footer))


def measure(model: Path, inputs: Path, output: Path, *options: str | Path) -> Measurement:
    """Run the job."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "rgpt_batch", "score", "--quiet", "--executor", "local"]
    command += ["--input", str(inputs), "--output", str(output), "--model", str(model)]
    process = subprocess.Popen([*command, "-o", "engine.method=fake", *map(str, options)], cwd=ROOT)
    peak_memory = index_size = 0
    while process.poll() is None:
        # Not ru_maxrss, which would begin with what this process held when it forked.
        with suppress(FileNotFoundError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            if "VmHWM:" in status:
                peak_memory = int(status.split("VmHWM:")[1].split()[0])
        # The index is deleted when the job is done.
        sizes = [path.stat().st_size for path in output.glob("_rgpt/reuse/*.arrow")]
        index_size = max([index_size, *sizes])
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"the job failed with status {process.returncode}")
    return Measurement(
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory * 1024 / 1e6,
        index_size=index_size / 1e6,
    )


def num_reused(output: Path) -> int:
    """Read from the output how many scores were copied."""
    return int(json.loads((output / "_SUCCESS").read_text())["num_reused"])


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--reused", type=float, default=0.95)
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "smollm2-135m")
    arguments = parser.parse_args()
    overrides = (f"model.name={arguments.model}", "engine.method=fake")
    lines = [
        "# A job that reuses the scores of an earlier one",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.machine()}; fake engine, "
        f"local executor, documents of {_DOCUMENT_WORDS} words; time from start to end of the "
        "command, the index included.",
        "",
        "| rows, old and new | reused | time | rows/s | peak memory | index | old output |",
        "|---|---|---|---|---|---|---|",
    ]
    changed_every = round(1 / (1 - arguments.reused))
    for num_rows in arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_input(folder / "old-pairs", num_rows)
            write_output(load_config(None, overrides), folder / "old-pairs", folder / "old")
            old_size = sum(path.stat().st_size for path in (folder / "old").glob("part-*")) / 1e6
            write_input(folder / "new-pairs", num_rows, changed_every=changed_every)
            new = folder / "new"
            found = measure(arguments.model, folder / "new-pairs", new, "--reuse", folder / "old")
            lines.append(
                f"| {num_rows:,} | {num_reused(new):,} | {found.seconds:.0f} s | "
                f"{num_rows / found.seconds:,.0f} | {found.peak_memory:,.0f} MB | "
                f"{found.index_size:,.0f} MB | {old_size:,.0f} MB |"
            )
            print(lines[-1], flush=True)
    with tempfile.TemporaryDirectory() as name:
        write_input(Path(name, "pairs"), _WITHOUT_REUSE)
        found = measure(arguments.model, Path(name, "pairs"), Path(name, "new"))
        lines.append(
            f"| {_WITHOUT_REUSE:,}, without --reuse | 0 | {found.seconds:.0f} s | "
            f"{_WITHOUT_REUSE / found.seconds:,.0f} | {found.peak_memory:,.0f} MB | 0 MB | none |"
        )
    table = "\n".join(lines) + "\n"
    print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{time.strftime('%Y-%m-%d')}-reuse.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
