"""The search for faster settings: one knob after the other, as long as turning it helps.

Two choices are measured against each other, in turns on the same rows. The new one is taken where
it was faster in every turn, and by more than a few percent in the middle. Another dtype changes
scores, so it is taken only as far as the user allows.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rgpt_batch.bench.knobs import Knobs, Step

# Below that, a gain is within the noise of most machines.
MIN_GAIN = 1.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A choice that was measured against another.

    Attributes:
        pairs_per_second: Of the new choice in each turn; empty where it was not measured.
        reference_pairs_per_second: Of the other one in the same turns.
        max_score_change: Largest difference of a score between the two; None where unknown.
        not_measured: Why, where it was not, or not to the end.
    """

    knobs: Knobs
    reference: Knobs
    pairs_per_second: tuple[float, ...] = ()
    reference_pairs_per_second: tuple[float, ...] = ()
    max_score_change: float | None = None
    not_measured: str | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times as fast as the other one, turn by turn."""
        both = zip(self.pairs_per_second, self.reference_pairs_per_second, strict=True)
        return [new / old for new, old in both]

    @property
    def gain(self) -> float:
        """The median of the ratios; 0 where nothing was measured."""
        return statistics.median(self.ratios) if self.ratios else 0.0

    @property
    def is_faster(self) -> bool:
        """Whether every turn agrees, and the gain is more than noise."""
        return self.not_measured is None and self.gain >= MIN_GAIN and min(self.ratios) > 1

    @property
    def changes(self) -> dict[str, Any]:
        """The options that are new."""
        return self.knobs.changes_from(self.reference)


Measure = Callable[[Knobs, Knobs], Trial]


@dataclass(kw_only=True)
class Tuning:
    """What the search has found so far.

    Attributes:
        start: The settings that the configuration has.
        best: The fastest that may be taken.
        max_score_change: How much scores may change with another dtype; None: not at all.
        trials: In the order in which they were made.
        taken: Those of them that lead from the start to the best choice.
        is_over: Whether all knobs were turned; False where the search was cut short.
    """

    start: Knobs
    best: Knobs
    max_score_change: float | None
    trials: list[Trial] = field(default_factory=list)
    taken: list[Trial] = field(default_factory=list)
    is_over: bool = False

    @classmethod
    def of(cls, start: Knobs, max_score_change: float | None) -> Tuning:
        """Begin with the settings that there are."""
        return cls(start=start, best=start, max_score_change=max_score_change)

    def may_take(self, trial: Trial) -> bool:
        """Whether a choice is faster, and leaves scores alone as far as is asked for."""
        if not trial.is_faster:
            return False
        if trial.knobs.dtype == trial.reference.dtype:
            return True
        if self.max_score_change is None or trial.max_score_change is None:
            return False
        return trial.max_score_change <= self.max_score_change

    def search(
        self,
        knobs: Iterable[Sequence[Step]],
        dtypes: Callable[[Knobs], Iterable[Knobs]],
        measure: Measure,
        has_time: Callable[[], bool],
        keep: Callable[[], None],
    ) -> None:
        """Turn every knob, as long as there is time.

        Args:
            knobs: The directions that each can be turned in.
            dtypes: The choices with another dtype than the given one's.
            measure: Measures the first choice's successor, which comes second, against it.
            has_time: Whether another trial may begin.
            keep: Is called after each trial, so that a search that is cut leaves what it has.
        """
        seen = {self.start}
        for steps in knobs:
            for step in steps:
                is_better = False
                while (choice := step(self.best)) is not None and choice not in seen:
                    if not has_time():
                        return
                    seen.add(choice)
                    trial = measure(self.best, choice)
                    self.trials.append(trial)
                    took = self.may_take(trial)
                    if took:
                        self._take(trial)
                    keep()
                    if not took:
                        break
                    is_better = True
                if is_better:
                    break
        before, taken = self.best, list(self.taken)
        fastest = 0.0
        for choice in dtypes(before):
            if not has_time():
                return
            trial = measure(before, choice)
            self.trials.append(trial)
            if self.may_take(trial) and trial.gain > fastest:
                # Both dtypes were measured against the same choice: one replaces the other.
                self.taken, fastest = list(taken), trial.gain
                self._take(trial)
            keep()
        self.is_over = True
        keep()

    def _take(self, trial: Trial) -> None:
        self.best = trial.knobs
        self.taken.append(trial)
