"""Trials of `tune`: two choices of settings, loaded together, in turns on the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rgpt_batch.bench.findings import Findings
from rgpt_batch.bench.group import Group
from rgpt_batch.bench.knobs import Knobs
from rgpt_batch.bench.samples import SampledTexts
from rgpt_batch.bench.suite import take_turns
from rgpt_batch.bench.tuning import Trial
from rgpt_batch.bench.workload import Workload
from rgpt_batch.config.options import JobConfig
from rgpt_batch.formatting import format_count

_OLD, _NEW = "as now", "changed"
# Only the label matters: the rows are the user's.
_WORKLOAD = Workload(document_tokens=0, query_tokens=0, queries_per_document=1)


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What all trials share.

    Attributes:
        config: The job's, but for the settings that are tried.
        num_turns: Timed passes per choice.
        seconds_per_pass: About how long a pass takes.
        end: Seconds of time.monotonic() after which no turn begins.
        say: Told what happens, line by line.
    """

    config: JobConfig
    texts: SampledTexts
    num_turns: int
    seconds_per_pass: float
    end: float
    say: Callable[[str], None]

    def has_time(self) -> bool:
        """Whether another trial may begin."""
        return time.monotonic() < self.end

    def measure(self, reference: Knobs, choice: Knobs) -> Trial:
        """Measure a choice against another; whatever fails becomes the reason of the trial.

        Raises:
            ConfigError: The tokenizer cannot be loaded.
        """
        changes = ", ".join(f"{n}={v}" for n, v in choice.changes_from(reference).items())
        self.say(f"trying {changes}")
        # Engines divide the memory that one would have, by their number alone.
        config = self.config.with_options({"executor.gpus_per_worker": None})
        method = config.engine.method
        findings = Findings()
        group = Group(
            1,
            [reference.variant(_OLD, method), choice.variant(_NEW, method)],
            config,
            None,
            self.texts,
            self.seconds_per_pass,
            findings,
            lambda line: None,
            baseline=_OLD,
        )
        try:
            group.start(self.end)
            in_time = take_turns(group, _WORKLOAD, self.num_turns, self.end, lambda line: None)
        finally:
            group.close()
        trial = self._trial(reference, choice, findings, in_time=in_time)
        self.say(
            f"{changes}: {trial.not_measured}"
            if trial.not_measured is not None
            else f"{changes}: {trial.gain:.2f} times as fast"
        )
        return trial

    def _trial(
        self, reference: Knobs, choice: Knobs, findings: Findings, *, in_time: bool
    ) -> Trial:
        speeds: dict[str, tuple[float, ...]] = {_OLD: (), _NEW: ()}
        change = None
        for result in findings.results:
            speeds[result.variant.name] = tuple(turn.pairs_per_second for turn in result.turns)
            if result.variant.name == _NEW:
                change = result.max_score_difference
        num_turns = min(map(len, speeds.values()))
        reasons = findings.not_measured
        problem = reasons.get(_NEW)
        if others := [reason for name, reason in reasons.items() if name != _NEW]:
            problem = f"with both in memory, the settings it is compared with fail: {others[0]}"
        if problem is None and num_turns < self.num_turns:
            late = "" if in_time else "time was over after "
            problem = f"{late}{format_count(num_turns, 'turn')} of {self.num_turns}"
        return Trial(
            knobs=choice,
            reference=reference,
            pairs_per_second=speeds[_NEW][:num_turns],
            reference_pairs_per_second=speeds[_OLD][:num_turns],
            max_score_change=change,
            not_measured=problem,
        )
