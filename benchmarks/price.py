"""How well does `plan --like` predict a job from another one?

    python benchmarks/price.py [--shape smollm2-135m] [--method query-rows] [--pairs 400]

On CPUs `-o engine.kv_cache_bytes=1073741824 -o engine.enforce_eager=true` starts engines sooner.
In turns: a job with documents of 80 words is scored; the speed of one with 120 words is predicted
from it, as `plan --like` does; then that one is scored. Random weights, random words, one worker in
this process. The table goes to standard output, and with --to to a file.

400 pairs take two cores one to two minutes, and a turn four. Jobs of twenty seconds vary by a
quarter on such a machine, whatever predicts them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.bench.hardware import hardware_name
from rgpt_batch.bench.models import random_model
from rgpt_batch.commands.price import speed_like
from rgpt_batch.config.options import JobConfig
from rgpt_batch.job.plan import plan_job
from rgpt_batch.job.run_job import run_job
from rgpt_batch.planning.estimate import sample_tokens
from rgpt_batch.report.runs import run_facts

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.whole_jobs import only_run, publish, words_of

_KNOWN_WORDS, _PREDICTED_WORDS = 80, 120


def write_pairs(
    path: Path, num_pairs: int, num_words: int, seed: int, words: Sequence[str]
) -> Path:
    """Write pairs whose texts are random words, each document with one query."""
    chooser = random.Random(seed)
    numbers = range(num_pairs)
    table = {
        "query_id": [f"q{number}" for number in numbers],
        "doc_id": [f"d{number}" for number in numbers],
        "query": [" ".join(chooser.choices(words, k=6)) for _ in numbers],
        "document": [" ".join(chooser.choices(words, k=num_words)) for _ in numbers],
    }
    pq.write_table(pa.table(table), path)
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A prediction, and what came.

    Attributes:
        known_seconds: How long the job scored that the prediction is made from.
        predicted: Pairs per second.
        seconds: How long the predicted job scored.
        measured: Pairs per second.
    """

    known_seconds: float
    predicted: float
    seconds: float
    measured: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def take_turn(config: JobConfig, num_pairs: int, seed: int) -> Turn:
    """Score a job, predict another one, score that."""
    with tempfile.TemporaryDirectory(prefix="rgpt-batch-") as folder:
        work, words = Path(folder), words_of(config)
        known = write_pairs(work / "known.parquet", num_pairs, _KNOWN_WORDS, seed, words)
        other = write_pairs(work / "other.parquet", num_pairs, _PREDICTED_WORDS, seed + 1, words)
        run_job(config, [known], work / "known", quiet=True)
        pinned, manifest = plan_job(config, [str(other)], str(work / "other"))
        predicted = speed_like(str(work / "known"), sample_tokens(pinned, manifest, 1000))
        run_job(config, [other], work / "other", quiet=True)
        before, found = (run_facts(1, only_run(work / name)) for name in ("known", "other"))
    return Turn(
        known_seconds=before.scoring_seconds,
        predicted=predicted,
        seconds=found.scoring_seconds,
        measured=found.pairs_per_second,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="smollm2-135m")
    parser.add_argument("--method", default="query-rows")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("-o", dest="options", action="append", default=[])
    parser.add_argument("--to", type=Path)
    given = parser.parse_args()
    # Before torch is loaded: its threads would wait in a loop, and keep others from the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _, config = random_model(
        given.shape,
        Path(".cache"),
        (
            f"engine.method={given.method}",
            "executor.kind=local",
            f"units.max_rows={max(1, given.pairs // 6)}",
            *given.options,
        ),
    )
    turns = [take_turn(config, given.pairs, 2 * number) for number in range(given.turns)]
    lines = [
        "# plan --like against what was measured",
        "",
        f"{hardware_name()}; {given.shape} with random weights, {given.method}, "
        f"{config.model.dtype}; {given.pairs} pairs a job; predicted from documents of "
        f"{_KNOWN_WORDS} words, measured with {_PREDICTED_WORDS}.",
        "",
        "| turn | known job, s | predicted, pairs/s | predicted job, s | measured, pairs/s "
        "| predicted over measured |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {number} | {turn.known_seconds:.0f} | {turn.predicted:.2f} | {turn.seconds:.0f} "
            f"| {turn.measured:.2f} | {turn.ratio:.2f} |"
            for number, turn in enumerate(turns, 1)
        ),
        "",
        f"Predicted over measured: {min(turn.ratio for turn in turns):.2f} to "
        f"{max(turn.ratio for turn in turns):.2f}, "
        f"{statistics.median(turn.ratio for turn in turns):.2f} in the middle.",
    ]
    publish(lines, given.to)


if __name__ == "__main__":
    main()
