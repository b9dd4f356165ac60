"""One benchmark run: load every contestant, take turns, report ratios.

Contestants score the same pairs in turns, so that a slow minute of the machine hits all of them;
the ratio to the baseline is taken within each turn; its median and range over the turns are shown.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rgpt_batch.bench.contestants import Contestant
from rgpt_batch.bench.shapes import ModelShape
from rgpt_batch.bench.workload import Workload, make_pairs, write_pairs
from rgpt_batch.config import JobConfig
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.job import run_job
from rgpt_batch.protocol import load_protocol
from rgpt_batch.records import ScorePair, TokenizedPair

BASELINE = "prompt-logprobs"
PIPELINE = "pipeline"


@dataclass(kw_only=True)
class Result:
    """What was measured of one method on one workload.

    Attributes:
        seconds: One value per turn.
        flops: FLOPs that the scores of one turn need, nothing shared.
        max_score_difference: Largest |mean logprob - the baseline's|, nats.
    """

    method: str
    workload: Workload
    num_pairs: int
    num_tokens: int
    flops: float
    seconds: list[float] = field(default_factory=list)
    max_score_difference: float = 0.0

    @property
    def pairs_per_second(self) -> float:
        """Median over the turns."""
        return self.num_pairs / statistics.median(self.seconds)


def run_suite(
    config: JobConfig,
    shape: ModelShape,
    methods: Sequence[str],
    workloads: Sequence[Workload],
    words: Sequence[str],
    num_turns: int,
    say: Callable[[str], None],
) -> list[Result]:
    """Measure methods on workloads, interleaved.

    Args:
        config: Model and engine options that all methods share.
        shape: For the FLOPs.
        methods: Engine methods, `card`, `eval`, or `pipeline` (the whole job with config's engine).
        workloads: What to score.
        words: To make texts of.
        num_turns: Timed passes per method and workload, after one that warms up.
        say: Told what happens, line by line.

    Raises:
        ConfigError: The tokenizer cannot be loaded.
    """
    protocol = load_protocol(config.protocol, config.model)
    contestants: dict[str, Contestant] = {}
    for method in methods:
        if method == PIPELINE:
            continue
        try:
            started = time.perf_counter()
            contestants[method] = Contestant(method, config)
            say(f"{method}: ready after {time.perf_counter() - started:.0f} s")
        except RgptBatchError as error:
            say(f"{method}: not measured: {error}")
    results: list[Result] = []
    try:
        for workload in workloads:
            texts = make_pairs(workload, words)
            pairs = [p for p in protocol.tokenize(texts) if isinstance(p, TokenizedPair)]
            rows = {
                method: Result(
                    method=method,
                    workload=workload,
                    num_pairs=len(pairs),
                    num_tokens=sum(len(pair.token_ids) for pair in pairs),
                    flops=sum(
                        shape.flops_per_score(len(pair.token_ids), pair.num_query_tokens)
                        for pair in pairs
                    ),
                )
                for method in [*contestants, *([PIPELINE] if PIPELINE in methods else [])]
            }
            for contestant in contestants.values():
                # Warms up.
                contestant.score(pairs[:32])
            for turn in range(1, num_turns + 1):
                scores = {}
                for method, contestant in contestants.items():
                    measurement = contestant.score(pairs)
                    rows[method].seconds.append(measurement.seconds)
                    scores[method] = measurement.scores
                if PIPELINE in methods:
                    rows[PIPELINE].seconds.append(_run_pipeline(config, texts))
                times = ", ".join(f"{name} {row.seconds[-1]:.1f} s" for name, row in rows.items())
                say(f"{workload.label}, turn {turn}: {times}")
            for method, values in scores.items():
                if BASELINE in scores:
                    differences = np.abs(np.subtract(values, scores[BASELINE]))
                    rows[method].max_score_difference = float(np.max(differences))
            results += rows.values()
    finally:
        for contestant in contestants.values():
            contestant.close()
    return results


def _run_pipeline(config: JobConfig, texts: Sequence[ScorePair]) -> float:
    """Run the whole job, Parquet to Parquet; returns seconds from the first unit to the last."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pairs.parquet"
        write_pairs(texts, source)
        summary = run_job(config, [str(source)], f"{folder}/scored", quiet=True)
    return summary.num_rows / summary.pairs_per_second


def matmul_flops_per_second(seconds: float = 2.0) -> float:
    """Measure this machine's dense bfloat16 matrix products: the roof of any score."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))

    def timed(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed(2)
    count = max(1, round(seconds / timed(1)))
    return 2.0 * size**3 * count / timed(count)


def to_table(results: Sequence[Result], matmul_rate: float) -> str:
    """Format results as Markdown: speed, ratio to the baseline with range, share of the roof."""
    lines = [
        f"| workload | method | pairs/s | over {BASELINE} (range) | tokens/s | GFLOP/s | MFU "
        "| max score difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        peers = [r for r in results if r.workload == result.workload and r.method == BASELINE]
        ratios = [
            theirs / mine
            for peer in peers
            for mine, theirs in zip(result.seconds, peer.seconds, strict=True)
        ]
        ratio = (
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            if ratios
            else "-"
        )
        rate = result.pairs_per_second / result.num_pairs
        lines.append(
            f"| {result.workload.label} | {result.method} | {result.pairs_per_second:,.1f} "
            f"| {ratio} | {result.num_tokens * rate:,.0f} | {result.flops * rate / 1e9:,.1f} "
            f"| {result.flops * rate / matmul_rate:.0%} | {result.max_score_difference:.3f} |"
        )
    return "\n".join(lines)
