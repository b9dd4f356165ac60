"""One benchmark run: load every variant, take turns, keep what each turn took.

Variants score the same texts in turns, so that a slow minute of the machine hits all of them, and
ratios are taken within a turn. Every turn has new texts, so that no prefix cache has seen them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rgpt_batch.bench.contestants import Contestant, Measurement
from rgpt_batch.bench.shapes import ModelShape
from rgpt_batch.bench.variants import PIPELINE, Variant, groups
from rgpt_batch.bench.workload import Workload, make_pairs, single_token_words, write_pairs
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.job.run_job import run_job
from rgpt_batch.records import ScorePair, TokenizedPair
from rgpt_batch.scoring.protocol import ScoringProtocol, load_protocol
from rgpt_batch.scoring.tokenizer import load_tokenizer

BASELINE = "prompt-logprobs"
# The first passes of a variant tell how many pairs it scores in the time of a pass.
_NUM_WARM_UP_PAIRS = 4
_WARM_UP_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One timed pass.

    Attributes:
        flops: That the scores need, nothing shared.
    """

    num_pairs: int
    num_tokens: int
    flops: float
    seconds: float

    @property
    def pairs_per_second(self) -> float:
        """Speed."""
        return self.num_pairs / self.seconds


@dataclass(kw_only=True)
class Result:
    """What was measured of one variant on one workload.

    Attributes:
        group: Results of the same group and workload took turns with each other.
        max_score_difference: Largest |mean logprob - the baseline's|, nats; None where unknown.
    """

    variant: Variant
    workload: Workload
    group: int = 0
    turns: list[Turn] = field(default_factory=list)
    max_score_difference: float | None = None


@dataclass(kw_only=True)
class Findings:
    """All results so far.

    Attributes:
        not_measured: Variant name → why.
    """

    results: list[Result] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What to measure.

    Attributes:
        config: Model and engine options that all variants share.
        shape: For the FLOPs; None where the model's sizes are not known.
        num_turns: Timed passes per variant and workload.
        seconds_per_pass: About how long a pass takes.
        budget_seconds: No turn begins after this time.
    """

    config: JobConfig
    shape: ModelShape | None
    variants: Sequence[Variant]
    workloads: Sequence[Workload]
    num_turns: int
    seconds_per_pass: float
    budget_seconds: float

    def run(self, say: Callable[[str], None], keep: Callable[[Findings], None]) -> Findings:
        """Measure, interleaved.

        Args:
            say: Told what happens, line by line.
            keep: Given everything after each turn, so that a run that is cut leaves its results.

        Raises:
            ConfigError: The tokenizer cannot be loaded.
        """
        end = time.monotonic() + self.budget_seconds
        findings = Findings()
        for number, variants in enumerate(groups(self.variants)):
            loaded = _Loaded(self, number, variants, findings, say, end)
            try:
                self._measure(loaded, findings, say, keep, end)
            finally:
                loaded.close()
        return findings

    def _measure(
        self,
        loaded: _Loaded,
        findings: Findings,
        say: Callable[[str], None],
        keep: Callable[[Findings], None],
        end: float,
    ) -> None:
        for workload in self.workloads:
            results: list[Result] = []
            for turn in range(1, self.num_turns + 1):
                if time.monotonic() > end:
                    say(f"{self.budget_seconds:.0f} s are over")
                    return
                results = results or loaded.results_for(workload)
                if not results:
                    break
                loaded.take_turn(workload, results, seed=turn)
                speeds = ", ".join(
                    f"{r.variant.name} {r.turns[-1].pairs_per_second:,.1f}"
                    for r in results
                    if r.turns
                )
                say(f"{workload.label}, turn {turn}, pairs/s: {speeds}")
                keep(findings)


class _Loaded:
    """A group of variants, ready to score."""

    def __init__(
        self,
        suite: Suite,
        group: int,
        variants: Sequence[Variant],
        findings: Findings,
        say: Callable[[str], None],
        end: float,
    ) -> None:
        self._suite = suite
        self._group = group
        self._findings = findings
        config = suite.config
        self._protocol: ScoringProtocol = load_protocol(config.protocol, config.model)
        self._words = single_token_words(load_tokenizer(config.model))
        self._contestants: dict[str, Contestant] = {}
        self._variants: list[Variant] = []
        num_engines = sum(variant.num_engines for variant in variants)
        self._configs = {v.name: v.configure(config, num_engines) for v in variants}
        for variant in variants:
            started = time.monotonic()
            if started > end:
                findings.not_measured[variant.name] = "there was no time left to start it"
                continue
            try:
                if variant.method != PIPELINE:
                    own = self._configs[variant.name]
                    self._contestants[variant.name] = Contestant(variant, own)
            except RgptBatchError as error:
                findings.not_measured[variant.name] = str(error).splitlines()[0]
                say(f"{variant.name}: not measured: {error}")
            else:
                self._variants.append(variant)
                say(f"{variant.name}: ready after {time.monotonic() - started:.0f} s")
        if group and variants[0] not in self._variants:
            reason = f"{variants[0].name}, which it is compared with, did not start"
            findings.not_measured |= {variant.name: reason for variant in self._variants}

    def results_for(self, workload: Workload) -> list[Result]:
        """Begin a workload. What gains nothing from shared documents is measured once."""
        is_shared = workload.queries_per_document > 1
        variants = [
            variant
            for variant in self._variants
            if (variant.shares_documents or variant.name == BASELINE or not is_shared)
            and not (variant.method == PIPELINE and is_shared)
        ]
        # All groups but the first compare one variant with query-rows, and need both.
        if self._group and len(variants) < 2:
            return []
        results = [Result(variant=v, workload=workload, group=self._group) for v in variants]
        self._findings.results += results
        self._num_pairs = {
            r.variant.name: self._calibrate(workload, r.variant)
            for r in results
            if r.variant.method != PIPELINE
        }
        return results

    def _calibrate(self, workload: Workload, variant: Variant) -> int:
        """Warm up, and return how many pairs fill a pass."""
        num_pairs = workload.round_up(_NUM_WARM_UP_PAIRS)
        seed = _WARM_UP_SEED
        contestant = self._contestants[variant.name]
        # What is done once, such as compiling a kernel, is in no estimate.
        contestant.score(self._tokenize(make_pairs(workload, num_pairs, self._words, seed)))
        while True:
            seed -= 1
            pairs = self._tokenize(make_pairs(workload, num_pairs, self._words, seed))
            seconds = contestant.score(pairs).seconds
            wanted = workload.round_up(int(num_pairs * self._suite.seconds_per_pass / seconds))
            # Small batches are slow, so the estimate is low until the pass is nearly full.
            if wanted < 4 * num_pairs:
                return wanted
            num_pairs = workload.round_up(wanted // 2)

    def take_turn(self, workload: Workload, results: Sequence[Result], seed: int) -> None:
        """Let every variant score its share of the turn's texts."""
        texts = make_pairs(workload, max(self._num_pairs.values()), self._words, seed)
        pairs = self._tokenize(texts)
        scores: dict[str, list[float]] = {}
        for result in results:
            name = result.variant.name
            if name in self._findings.not_measured:
                continue
            if result.variant.method == PIPELINE:
                count = len(pairs)
                try:
                    seconds = _run_pipeline(self._configs[name], texts)
                except RgptBatchError as error:
                    # Such as memory that query-rows has taken.
                    self._findings.not_measured[name] = str(error).splitlines()[0]
                    continue
            else:
                count = self._num_pairs[name]
                measurement: Measurement = self._contestants[name].score(pairs[:count])
                seconds, scores[name] = measurement.seconds, measurement.scores
            result.turns.append(
                Turn(
                    num_pairs=count,
                    num_tokens=sum(len(pair.token_ids) for pair in pairs[:count]),
                    flops=self._flops(pairs[:count]),
                    seconds=seconds,
                )
            )
        for result in results:
            name = result.variant.name
            if BASELINE in scores and name in scores:
                count = min(len(scores[name]), len(scores[BASELINE]))
                gap = np.abs(np.subtract(scores[name][:count], scores[BASELINE][:count]))
                result.max_score_difference = max(
                    result.max_score_difference or 0.0, float(gap.max())
                )

    def close(self) -> None:
        for contestant in self._contestants.values():
            contestant.close()

    def _tokenize(self, texts: Sequence[ScorePair]) -> list[TokenizedPair]:
        return [p for p in self._protocol.tokenize(texts) if isinstance(p, TokenizedPair)]

    def _flops(self, pairs: Sequence[TokenizedPair]) -> float:
        shape = self._suite.shape
        if shape is None:
            return 0.0
        return sum(shape.flops_per_score(len(p.token_ids), p.num_query_tokens) for p in pairs)


def _run_pipeline(config: JobConfig, texts: Sequence[ScorePair]) -> float:
    """Run the whole job, Parquet to Parquet.

    Returns:
        Seconds from the first unit's first byte to the last commit, as the record of the run tells;
        without the start of Ray and of the engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pairs.parquet"
        write_pairs(texts, source)
        summary = run_job(config, [str(source)], f"{folder}/scored", quiet=True)
        if summary.exit_code:
            raise RgptBatchError("; ".join(summary.problems))
        (record,) = Path(folder, "scored", "_rgpt", "runs").glob("*.json")
        units = json.loads(record.read_text())["units"]
    begin = min(unit["started_at"] for unit in units)
    return float(max(unit["finished_at"] for unit in units) - begin)
