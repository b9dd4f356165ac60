"""How fast all runs were together, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rgpt_batch.job.totals import EngineTime
from rgpt_batch.report.runs import RunFacts, RunRecord
from rgpt_batch.report.work_time import scoring_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """All runs that finished a unit, taken together.

    Attributes:
        pairs_per_second: Per second in which units were at work; copied scores do not count,
            rejected rows do.
        engine_time: Of all workers.
        mean_prompt_tokens: Of the rows that the engine was given, the template included; None where
            it was given none.
        hardware: What workers computed on, and the most workers that had it in one run.
    """

    pairs_per_second: float
    prompt_tokens_per_second: float
    engine_time: EngineTime
    mean_prompt_tokens: float | None
    hardware: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the recorded runs cost.

    Attributes:
        currency: As the user names it.
        price_per_hour: Of one worker's GPUs.
        worker_hours: Time for which workers were held, idle or not, in all recorded runs.
        scoring_hours: The part of it between each worker's first engine call and its last.
        per_million_pairs: Of the scoring hours, per pair that was not copied: what more pairs would
            cost. None where there are none.
    """

    currency: str
    price_per_hour: float
    worker_hours: float
    scoring_hours: float
    per_million_pairs: float | None
    per_million_prompt_tokens: float | None

    @property
    def total(self) -> float:
        """The price of all worker hours."""
        return self.worker_hours * self.price_per_hour

    @property
    def scoring(self) -> float:
        """The part of the total for scoring."""
        return self.scoring_hours * self.price_per_hour

    @property
    def around(self) -> float:
        """The part for the start and the end of runs, which does not grow with the pairs."""
        return self.total - self.scoring

    @property
    def around_fraction(self) -> float:
        """That part's share of the total."""
        return 1 - self.scoring_hours / self.worker_hours if self.worker_hours else 0.0


def speed_of(runs: Sequence[RunFacts], records: Sequence[RunRecord]) -> Speed | None:
    """Take runs together; None where none finished a unit. Time that runs share counts once."""
    done = [run for run in runs if run.num_units]
    if not done:
        return None
    seconds = scoring_seconds(records)
    num_prompt_tokens = sum(run.num_prompt_tokens for run in done)
    num_prompts = sum(run.num_prompts - run.num_reused for run in done)
    hardware: dict[str, int] = {}
    for run in done:
        for name, num_workers in run.hardware.items():
            hardware[name] = max(hardware.get(name, 0), num_workers)
    return Speed(
        pairs_per_second=sum(run.num_computed for run in done) / seconds,
        prompt_tokens_per_second=num_prompt_tokens / seconds,
        engine_time=_engine_time(done),
        mean_prompt_tokens=num_prompt_tokens / num_prompts if num_prompts else None,
        hardware=hardware,
    )


def cost_of(runs: Sequence[RunFacts], price_per_hour: float, currency: str) -> Cost:
    """Compute what runs cost."""
    worker_hours = sum(run.worker_hours for run in runs)
    # Clocks of workers differ from the driver's.
    scoring_hours = min(worker_hours, _engine_time(runs).scoring_seconds / 3600)
    scoring = scoring_hours * price_per_hour
    num_pairs = sum(run.num_computed for run in runs)
    num_tokens = sum(run.num_prompt_tokens for run in runs)
    return Cost(
        currency=currency,
        price_per_hour=price_per_hour,
        worker_hours=worker_hours,
        scoring_hours=scoring_hours,
        per_million_pairs=scoring / num_pairs * 1e6 if num_pairs else None,
        per_million_prompt_tokens=scoring / num_tokens * 1e6 if num_tokens else None,
    )


def _engine_time(runs: Sequence[RunFacts]) -> EngineTime:
    return EngineTime(
        busy_seconds=sum(run.engine_time.busy_seconds for run in runs),
        scoring_seconds=sum(run.engine_time.scoring_seconds for run in runs),
    )
