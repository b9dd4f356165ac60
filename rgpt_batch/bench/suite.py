"""One benchmark run: load every variant, take turns, keep what each turn took.

Variants score the same texts in turns, so that a slow minute of the machine hits all of them, and
ratios are taken within a turn. Every turn has new texts, so that no prefix cache has seen them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rgpt_batch.bench.findings import Findings, Result
from rgpt_batch.bench.group import Group
from rgpt_batch.bench.shapes import ModelShape
from rgpt_batch.bench.variants import Variant, groups
from rgpt_batch.bench.workload import RandomTexts, Workload, single_token_words
from rgpt_batch.config.options import JobConfig
from rgpt_batch.scoring.tokenizer import load_tokenizer


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
        texts = RandomTexts(single_token_words(load_tokenizer(self.config.model)))
        all_fit = self.config.engine.kv_cache_bytes is not None
        for number, variants in enumerate(groups(self.variants, all_fit=all_fit)):
            group = Group(
                number,
                variants,
                self.config,
                self.shape,
                texts,
                self.seconds_per_pass,
                findings,
                say,
            )
            try:
                group.start(end)
                keep(findings)
                for workload in self.workloads:
                    if not take_turns(
                        group, workload, self.num_turns, end, say, lambda: keep(findings)
                    ):
                        say(f"{self.budget_seconds:.0f} s are over")
                        break
            finally:
                group.close()
        return findings


def take_turns(
    group: Group,
    workload: Workload,
    num_turns: int,
    end: float,
    say: Callable[[str], None],
    keep: Callable[[], None] = lambda: None,
) -> bool:
    """Let a group that has started measure a workload.

    Args:
        group: Adds to its findings.
        workload: What to score.
        num_turns: Timed passes per variant.
        end: Seconds of time.monotonic() after which no turn begins.
        say: Told what happens, line by line.
        keep: Called after each turn.

    Returns:
        Whether there was time for all turns.
    """
    results: list[Result] = []
    for turn in range(1, num_turns + 1):
        if time.monotonic() > end:
            return False
        results = results or group.results_for(workload)
        if not results:
            break
        is_any_left = group.take_turn(workload, results, turn)
        speeds = ", ".join(
            f"{r.variant.name} {r.turns[-1].pairs_per_second:,.1f}" for r in results if r.turns
        )
        say(f"{workload.label}, turn {turn}, pairs/s: {speeds}")
        keep()
        if not is_any_left:
            break
    return True
