"""Variants that are loaded together and take turns.

One that fails, however that is, ends: what it had measured stays, and the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from rgpt_batch.bench.contestants import Contestant
from rgpt_batch.bench.findings import BASELINE, Findings, Result, Turn
from rgpt_batch.bench.pipeline import run_pipeline
from rgpt_batch.bench.shapes import ModelShape
from rgpt_batch.bench.variants import PIPELINE, Variant
from rgpt_batch.bench.workload import Texts, Workload
from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.starts import starts_beside_others
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.records import Prompt, ScorePair
from rgpt_batch.scoring.protocol import load_protocol

# The first passes of a variant tell how many pairs it scores in the time of a pass.
_NUM_WARM_UP_PAIRS = 4
_WARM_UP_SEED = 0


class Group:
    """Contestants, from their start to their end.

    Args:
        number: Which group of the run; in all but the first, variants are compared with the first.
        variants: At least one, unless it is the first group.
        config: Model and engine options that all variants share.
        shape: For the FLOPs; None where the model's sizes are not known.
        texts: What is scored.
        seconds_per_pass: About how long a pass takes.
        findings: Get results, and the reasons why there is none.
        say: Told what happens, line by line.
        baseline: The variant that scores are compared with.

    Raises:
        ConfigError: The tokenizer cannot be loaded.
    """

    def __init__(
        self,
        number: int,
        variants: Sequence[Variant],
        config: JobConfig,
        shape: ModelShape | None,
        texts: Texts,
        seconds_per_pass: float,
        findings: Findings,
        say: Callable[[str], None],
        baseline: str = BASELINE,
    ) -> None:
        self._number = number
        self._shape = shape
        self._seconds_per_pass = seconds_per_pass
        self._findings = findings
        self._say = say
        self._protocol = load_protocol(config.protocol, config.model)
        self._texts = texts
        self._baseline = baseline
        self._variants = list(variants)
        self._reference = variants[0].name if number else None
        num_engines = sum(variant.num_engines for variant in variants)
        self._configs = {v.name: v.configure(config, num_engines) for v in variants}
        self._contestants: dict[str, Contestant] = {}
        self._num_pairs: dict[str, int] = {}

    def start(self, end: float) -> None:
        """Start every variant, at the same time where the engines allow it.

        Args:
            end: Seconds of time.monotonic() after which none begins to start.
        """
        started = time.monotonic()
        starting = [variant for variant in self._variants if variant.method != PIPELINE]
        for variant in starting:
            if time.monotonic() > end:
                self._give_up(variant, "there was no time left to start it")
                continue
            config = self._configs[variant.name]
            try:
                self._contestants[variant.name] = Contestant(variant, config)
            except RgptBatchError as error:
                self._give_up(variant, str(error))
            if not starts_beside_others(config):
                self._wait_for(variant, started)
        for variant in starting:
            if starts_beside_others(self._configs[variant.name]):
                self._wait_for(variant, started)
        self._check_reference()

    def _wait_for(self, variant: Variant, started: float) -> None:
        if contestant := self._contestants.get(variant.name):
            try:
                contestant.wait_until_ready()
            except RgptBatchError as error:
                self._give_up(variant, str(error))
            else:
                self._say(f"{variant.name}: ready after {time.monotonic() - started:.0f} s")

    def results_for(self, workload: Workload) -> list[Result]:
        """Begin a workload. What gains nothing from shared documents is measured once.

        Returns:
            One per variant that is measured; empty where there is nothing to compare.
        """
        is_shared = workload.queries_per_document > 1
        variants = [
            variant
            for variant in self._variants
            if (variant.shares_documents or variant.name == self._baseline or not is_shared)
            and not (variant.method == PIPELINE and is_shared)
        ]
        for variant in variants:
            if variant.method != PIPELINE:
                try:
                    self._num_pairs[variant.name] = self._calibrate(workload, variant)
                except RgptBatchError as error:
                    self._give_up(variant, f"in the warm-up for {workload.label}: {error}")
        self._check_reference()
        variants = [variant for variant in variants if variant in self._variants]
        if len(variants) < (2 if self._number else 1):
            return []
        results = [Result(variant=v, workload=workload, group=self._number) for v in variants]
        self._findings.results += results
        return results

    def _calibrate(self, workload: Workload, variant: Variant) -> int:
        """Warm up, and return how many pairs fill a pass."""
        num_pairs = workload.round_up(_NUM_WARM_UP_PAIRS)
        seed = _WARM_UP_SEED
        contestant = self._contestants[variant.name]
        # What is done once, such as compiling a kernel, is in no estimate.
        contestant.score(self._tokenize(self._texts.draw(workload, num_pairs, seed)))
        while True:
            seed -= 1
            texts = self._texts.draw(workload, num_pairs, seed)
            seconds = contestant.score(self._tokenize(texts)).seconds
            if len(texts) < num_pairs:
                return len(texts)
            wanted = workload.round_up(int(num_pairs * self._seconds_per_pass / seconds))
            # Small batches are slow, so the estimate is low until the pass is nearly full.
            if wanted < 4 * num_pairs:
                return wanted
            num_pairs = workload.round_up(wanted // 2)

    def take_turn(self, workload: Workload, results: Sequence[Result], number: int) -> bool:
        """Let every variant that is left score its share of the turn's texts.

        Args:
            workload: The one that results_for has begun.
            results: What it returned.
            number: Of the turn, from 1.

        Returns:
            Whether any variant was measured.
        """
        present = [result for result in results if result.variant in self._variants]
        if not present:
            return False
        texts = self._texts.draw(workload, max(self._num_pairs.values()), seed=number)
        pairs = self._tokenize(texts)
        scores: dict[str, list[float]] = {}
        for result in present:
            name = result.variant.name
            count = self._num_pairs.get(name, len(pairs))
            try:
                if result.variant.method == PIPELINE:
                    seconds = run_pipeline(self._configs[name], texts)
                else:
                    measurement = self._contestants[name].score(pairs[:count])
                    seconds, scores[name] = measurement.seconds, measurement.scores
            except RgptBatchError as error:
                self._give_up(result.variant, f"in turn {number} of {workload.label}: {error}")
                continue
            result.turns.append(
                Turn(
                    num_pairs=len(pairs[:count]),
                    num_tokens=sum(len(pair.token_ids) for pair in pairs[:count]),
                    flops=self._flops(pairs[:count]),
                    seconds=seconds,
                )
            )
        for result in present:
            name = result.variant.name
            if self._baseline in scores and name in scores:
                theirs = scores[self._baseline]
                count = min(len(scores[name]), len(theirs))
                gap = np.abs(np.subtract(scores[name][:count], theirs[:count]))
                result.max_score_difference = max(
                    result.max_score_difference or 0.0, float(gap.max())
                )
        return any(result.variant in self._variants for result in present)

    def close(self) -> None:
        """End all processes."""
        for contestant in self._contestants.values():
            contestant.close()

    def _give_up(self, variant: Variant, reason: str) -> None:
        """Measure a variant no further, and free what it holds."""
        self._variants.remove(variant)
        if contestant := self._contestants.pop(variant.name, None):
            contestant.close()
        self._say(f"{variant.name}: not measured: {reason}")
        name = variant.name
        if name == self._reference:
            # There is a query-rows in every group.
            name += f", beside {', '.join(self._configs.keys() - {name})}"
        self._findings.not_measured[name] = reason.splitlines()[0]

    def _check_reference(self) -> None:
        """In groups that compare with query-rows, give up the other one where that failed."""
        if self._reference not in (None, *(variant.name for variant in self._variants)):
            for variant in list(self._variants):
                reason = f"{self._reference}, which it is compared with, is not measured"
                self._give_up(variant, reason)

    def _tokenize(self, texts: Sequence[ScorePair]) -> list[Prompt]:
        return [p for p in self._protocol.tokenize(texts) if isinstance(p, Prompt)]

    def _flops(self, pairs: Sequence[Prompt]) -> float:
        if self._shape is None:
            return 0.0
        return sum(self._shape.flops_per_score(len(p.token_ids), p.num_query_tokens) for p in pairs)
