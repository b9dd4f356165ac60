"""What the runs of a job did, from the records that they leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rgpt_batch.job.totals import EngineTime, engine_time, total
from rgpt_batch.output import Store
from rgpt_batch.records import UnitFailure, UnitReport

# A unit of the fake engine may take no time at all; a rate needs some.
SHORTEST_SECONDS = 1e-3

_Worker = TypeVar("_Worker")


class RunEnd(BaseModel):
    """What is read of the JobSummary in a run's record.

    Attributes:
        failures: The units that the run gave up.
        problems: Why the run is incomplete.
    """

    model_config = ConfigDict(frozen=True)

    failures: tuple[UnitFailure, ...] = ()
    problems: tuple[str, ...] = ()
    pairs_per_second: float = 0.0


class RunRecord(BaseModel):
    """What Run.close writes.

    Attributes:
        cause: What stopped the run, where something did.
        summary: Empty where the run was stopped.
        units: Those that the run finished.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: str
    started_at: float
    finished_at: float
    config: dict[str, Any]
    versions: dict[str, str]
    cause: str | None = None
    summary: RunEnd = RunEnd()
    units: tuple[UnitReport, ...]

    @property
    def seconds(self) -> float:
        """How long the run took; units may count by clocks that differ from the driver's."""
        ends = [unit.finished_at for unit in self.units]
        return max([self.finished_at, *ends]) - self.started_at


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """One run in figures.

    Attributes:
        number: From 1, oldest first.
        num_workers: The most workers that were at work at once: one that replaces a dead one is not
            another.
        num_retried: Units that took more than one attempt.
        num_duplicates: Units that another attempt or run had published first.
        num_prompts: Rows that have a score.
        num_reused: Those whose score was copied from an earlier job.
        seconds: From the command's start to its end.
        start_seconds: From the command's start to the first unit's: planning and loading engines.
        scoring_seconds: From the first unit's start to the last one's end.
        engine_time: Of all workers.
        engines: Methods that scored.
        hardware: What workers computed on, and how many of them.
        cause: What stopped the run, or why it is incomplete.
    """

    number: int
    run_id: str
    state: str
    started_at: float
    seconds: float
    start_seconds: float
    scoring_seconds: float
    engine_time: EngineTime
    engines: tuple[str, ...]
    hardware: dict[str, int]
    num_workers: int
    num_units: int
    num_rows: int
    num_prompts: int
    num_reused: int
    num_prompt_tokens: int
    num_retried: int
    num_duplicates: int
    failures: tuple[UnitFailure, ...]
    cause: str | None

    @property
    def pairs_per_second(self) -> float:
        """Pairs per second of scoring; copied scores do not count."""
        return self.num_computed / self.scoring_seconds

    @property
    def num_computed(self) -> int:
        """Rows whose score was not copied from an earlier job."""
        return self.num_rows - self.num_reused

    @property
    def worker_hours(self) -> float:
        """Time for which the run's workers were held, idle or not."""
        return self.num_workers * self.seconds / 3600


def read_records(store: Store) -> tuple[list[RunRecord], int]:
    """Return the records of all runs, oldest first, and how many are not of this version."""
    records, num_foreign = [], 0
    for found in store.read_runs():
        if found.get("state") == "running":
            # It still runs, or was killed: it has told nothing of its units.
            continue
        try:
            records.append(RunRecord.model_validate(found))
        except ValidationError:
            num_foreign += 1
    return records, num_foreign


def run_facts(number: int, record: RunRecord) -> RunFacts:
    """Sum up one run."""
    units = record.units
    begin = min((unit.started_at for unit in units), default=record.started_at)
    end = max((unit.finished_at for unit in units), default=begin)
    totals = total(units)
    return RunFacts(
        number=number,
        run_id=record.run_id,
        state=record.state,
        started_at=record.started_at,
        seconds=record.seconds,
        start_seconds=max(begin - record.started_at, 0.0),
        scoring_seconds=max(end - begin, SHORTEST_SECONDS),
        engine_time=engine_time(units),
        engines=tuple(sorted(totals.engines)),
        hardware=_hardware(units),
        num_workers=max(worker_lanes(worker_lives(units)).values(), default=-1) + 1,
        num_units=totals.num_units,
        num_rows=totals.num_rows,
        num_prompts=totals.num_prompts,
        num_reused=totals.num_reused,
        num_prompt_tokens=totals.num_prompt_tokens,
        num_retried=totals.num_retried,
        num_duplicates=totals.num_duplicates,
        failures=record.summary.failures,
        cause=record.cause or " ".join(record.summary.problems) or None,
    )


def _hardware(units: Sequence[UnitReport]) -> dict[str, int]:
    lanes = worker_lanes(worker_lives(units))
    # A worker that replaced a dead one has its lane.
    found = {lanes[unit.worker]: unit.hardware for unit in units if unit.hardware}
    return dict(Counter(found.values()))


def worker_lives(units: Sequence[UnitReport]) -> dict[str, tuple[float, float]]:
    """Return when each worker began its first unit and ended its last one."""
    lives: dict[str, tuple[float, float]] = {}
    for unit in units:
        low, high = lives.get(unit.worker, (unit.started_at, unit.finished_at))
        lives[unit.worker] = min(low, unit.started_at), max(high, unit.finished_at)
    return lives


def worker_lanes(lives: Mapping[_Worker, tuple[float, float]]) -> dict[_Worker, int]:
    """Give each worker the first lane that is free when it begins."""
    lanes: dict[_Worker, int] = {}
    free_from: list[float] = []
    for worker, (low, high) in sorted(lives.items(), key=lambda life: (life[1], str(life[0]))):
        lane = next((i for i, time in enumerate(free_from) if time <= low), len(free_from))
        free_from[lane : lane + 1] = [high]
        lanes[worker] = lane
    return lanes
