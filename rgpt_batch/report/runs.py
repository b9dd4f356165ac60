"""What the runs of a job did, from the records that they leave.

Runs lie minutes or days apart. *Work time* joins them: second 0 is the start of the first run, and
each run begins where the one before has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rgpt_batch.job.totals import EngineTime, engine_time, total
from rgpt_batch.output import Store
from rgpt_batch.records import UnitFailure, UnitReport

# A unit of the fake engine may take no time at all; a rate needs some.
SHORTEST_SECONDS = 1e-3


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """The three phases of a unit, each as (start, end) in seconds of work time.

    Attributes:
        lane: From 0; the workers of a run have lanes of their own, except that one that replaces
            a dead one may take over its lane.
    """

    report: UnitReport
    run_number: int
    lane: int
    read: tuple[float, float]
    engine: tuple[float, float]
    commit: tuple[float, float]


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
        num_workers=max(_lanes(units).values(), default=-1) + 1,
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
    lanes = _lanes(units)
    # A worker that replaced a dead one has its lane.
    found = {lanes[unit.worker]: unit.hardware for unit in units if unit.hardware}
    return dict(Counter(found.values()))


def spans(records: Sequence[RunRecord]) -> list[Spans]:
    """Place all units in work time, in the order in which they began."""
    found = []
    for number, (record, start) in enumerate(zip(records, run_starts(records), strict=True), 1):
        lanes = _lanes(record.units)
        shift = start - record.started_at
        for unit in record.units:
            begin, end = unit.started_at + shift, unit.finished_at + shift
            scored = end - unit.commit_seconds
            found.append(
                Spans(
                    report=unit,
                    run_number=number,
                    lane=lanes[unit.worker],
                    read=(begin, begin + unit.read_seconds),
                    engine=(scored - unit.engine_seconds, scored),
                    commit=(scored, end),
                )
            )
    return sorted(found, key=lambda span: (span.read, span.report.unit_id))


def run_starts(records: Sequence[RunRecord]) -> list[float]:
    """Return where each run begins in work time."""
    seconds = [record.seconds for record in records]
    return [0.0, *accumulate(seconds)][: len(records)]


def _lanes(units: Sequence[UnitReport]) -> dict[str, int]:
    """Give each worker the first lane that is free when it begins."""
    lives: dict[str, tuple[float, float]] = {}
    for unit in units:
        low, high = lives.get(unit.worker, (unit.started_at, unit.finished_at))
        lives[unit.worker] = min(low, unit.started_at), max(high, unit.finished_at)
    lanes: dict[str, int] = {}
    free_from: list[float] = []
    for worker, (low, high) in sorted(lives.items(), key=lambda life: (life[1], life[0])):
        lane = next((i for i, time in enumerate(free_from) if time <= low), len(free_from))
        free_from[lane : lane + 1] = [high]
        lanes[worker] = lane
    return lanes
