"""What does it save to score pairs by document, whole jobs compared?

    python benchmarks/order.py [--shape smollm2-135m] [--documents 20] [--queries 16] [--turns 2]

On CPUs, vLLM wants to be told its cache: `-o engine.kv_cache_bytes=1073741824`. Every query comes
with every document, and rows stand query by query, as candidates do; a unit holds the rows of one
query. In turns: the job as it stands, ordered by document, and that with its rows brought back into
input order at the end. Random weights, random words, one worker in this process.
The table goes to standard output, and with --to to a file.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.bench.hardware import hardware_name
from rgpt_batch.bench.models import random_model
from rgpt_batch.config.options import JobConfig
from rgpt_batch.job.run_job import run_job
from rgpt_batch.report.runs import run_facts

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.whole_jobs import only_run, publish, words_of

_QUERY_WORDS = 3
# Name in the table, and the options.
_WAYS = (
    ("--order input", ("units.order=input",)),
    ("--order document", ("units.order=document",)),
    (
        "--order document -o output.order=input",
        ("units.order=document", "output.order=input"),
    ),
)


@dataclass(frozen=True)
class Measured:
    """A job in figures; tokens are prompts', and a whole job holds its start, too."""

    pairs_per_second: float
    whole_pairs_per_second: float
    num_tokens: int
    num_computed: int


def write_pairs(
    path: Path, num_queries: int, num_documents: int, num_words: int, words: Sequence[str]
) -> None:
    """Write every query with every document, query by query; texts are random words."""
    chooser = random.Random(0)
    queries = [" ".join(chooser.choices(words, k=_QUERY_WORDS)) for _ in range(num_queries)]
    documents = [" ".join(chooser.choices(words, k=num_words)) for _ in range(num_documents)]
    rows = [(query, document) for query in range(num_queries) for document in range(num_documents)]
    table = {
        "query_id": [f"q{query}" for query, _ in rows],
        "doc_id": [f"d{document}" for _, document in rows],
        "query": [queries[query] for query, _ in rows],
        "document": [documents[document] for _, document in rows],
    }
    pq.write_table(pa.table(table), path)


def measure(config: JobConfig, pairs: Path, output: Path) -> Measured:
    """Run a job, and read what it has left on record."""
    run_job(config, [str(pairs)], str(output), quiet=True)
    record = only_run(output)
    facts = run_facts(1, record)
    num_tokens = sum(unit.num_prompt_tokens for unit in record.units)
    num_cached = sum(unit.num_cached_tokens for unit in record.units)
    return Measured(
        pairs_per_second=facts.pairs_per_second,
        whole_pairs_per_second=facts.num_rows / facts.seconds,
        num_tokens=num_tokens,
        num_computed=num_tokens - num_cached,
    )


def rows(found: dict[str, list[Measured]]) -> Iterator[str]:
    """The table's lines: medians, with the least and the most of what was measured in turns."""
    first = found[_WAYS[0][0]]
    for name, turns in found.items():
        times = [
            one.pairs_per_second / base.pairs_per_second
            for one, base in zip(turns, first, strict=True)
        ]
        speed = statistics.median(one.pairs_per_second for one in turns)
        whole = statistics.median(one.whole_pairs_per_second for one in turns)
        share = turns[0].num_computed / turns[0].num_tokens
        yield (
            f"| `{name}` | {share:.1%} | {speed:.2f} | {statistics.median(times):.2f} "
            f"({min(times):.2f} to {max(times):.2f}) | {whole:.2f} |"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="smollm2-135m")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("-o", dest="options", action="append", default=[])
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    # Before torch is loaded: its threads would wait in a loop, and keep others from the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = ("executor.kind=local", f"units.max_rows={given.documents}", *given.options)
    _, config = random_model(given.shape, Path(".cache"), options)
    found: dict[str, list[Measured]] = {name: [] for name, _ in _WAYS}
    with tempfile.TemporaryDirectory(prefix="rgpt-batch-") as folder:
        pairs = Path(folder) / "pairs.parquet"
        write_pairs(pairs, given.queries, given.documents, given.words, words_of(config))
        for turn in range(given.turns):
            for number, (name, changes) in enumerate(_WAYS):
                job = config.with_options(dict(each.split("=") for each in changes))
                found[name].append(measure(job, pairs, Path(folder) / f"scored-{turn}-{number}"))
    lines = [
        "# Pairs ordered by document, whole jobs",
        "",
        f"{hardware_name()}; {given.shape} with random weights, {config.model.dtype}; "
        f"{given.queries} queries with each of {given.documents} documents of {given.words} words, "
        f"rows query by query, a query's rows to a unit; {given.turns} turns.",
        "",
        "| job | tokens computed | pairs/s while scoring | over the first | pairs/s, whole job |",
        "|---|---:|---:|---:|---:|",
        *rows(found),
    ]
    publish(lines, given.to)


if __name__ == "__main__":
    main()
