"""Everything that a report says, before it is drawn and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rgpt_batch.database import DEFAULT_MEMORY_GIB, open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.formatting import format_count
from rgpt_batch.output import Store
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.ranking.metrics import DEFAULT_METRICS
from rgpt_batch.records import UnitFailure
from rgpt_batch.report.copies import local_files
from rgpt_batch.report.quality import Quality, assess
from rgpt_batch.report.rows import RowFacts, row_facts
from rgpt_batch.report.runs import RunFacts, RunRecord, read_records, run_facts
from rgpt_batch.report.work_time import scoring_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the recorded runs cost; any currency.

    Attributes:
        price_per_hour: Of one worker's GPUs.
        worker_hours: Time for which workers were held, idle or not, in all recorded runs.
        per_million_pairs: Of the pairs that these runs scored; None where there are none.
        idle_fraction: Share of the worker hours in which no engine was at work.
    """

    price_per_hour: float
    worker_hours: float
    total: float
    per_million_pairs: float | None
    per_million_prompt_tokens: float | None
    idle_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """All runs that finished a unit, taken together.

    Attributes:
        pairs_per_second: Rows, rejected ones included, per second in which units were at work.
        engine_busy_fraction: See JobSummary.
        mean_prompt_tokens: Of the rows that the engine was given, the template included.
    """

    pairs_per_second: float
    prompt_tokens_per_second: float
    engine_busy_fraction: float
    mean_prompt_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """An output folder in facts.

    Attributes:
        state: complete, incomplete, or what the job does now.
        false_success: Why the _SUCCESS that is there is not to be believed.
        num_rows: Rows of the input.
        num_rows_committed: Those that stand in the output.
        rows: None where nothing is committed.
        runs: Oldest first.
        records: The same runs, unit by unit.
        num_foreign_records: Run records that another version has written.
        num_rows_unrecorded: Committed rows of which no run record speaks.
        failures: Units that the last run gave up and that are still missing.
        speed: None where no run record tells of a unit.
        model: Name that the configuration gives it; None before the first unit or record.
        config: That of the last run.
        quality: None without qrels, or where the job is not complete.
        quality_missing: Why there is no quality although qrels were given.
    """

    output: str
    state: str
    false_success: str | None
    manifest: Manifest
    num_units_committed: int
    num_rows_committed: int
    rows: RowFacts | None
    runs: tuple[RunFacts, ...]
    records: tuple[RunRecord, ...]
    num_foreign_records: int
    num_rows_unrecorded: int
    failures: tuple[UnitFailure, ...]
    speed: Speed | None
    model: str | None
    config: dict[str, Any] | None
    versions: dict[str, str]
    cost: Cost | None
    quality: Quality | None
    quality_missing: str | None

    @property
    def num_rows(self) -> int:
        """Rows of the input."""
        return self.manifest.num_rows

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before all else, one sentence or two each."""
        notes = []
        num_units = len(self.manifest.units)
        if num_missing := num_units - self.num_units_committed:
            notes.append(
                f"{num_missing:,} of {num_units:,} units "
                f"({self.num_rows - self.num_rows_committed:,} rows) are not scored yet. Running "
                "the same command again scores them."
            )
        elif self.state != "complete" and self.false_success is None:
            notes.append("All units are there, but the job was not declared complete: no _SUCCESS.")
        if self.false_success is not None:
            notes.append(
                f"The output does not count as complete: {self.false_success}. Running the same "
                "command again mends that."
            )
        last = self.runs[-1] if self.runs else None
        # A run that came to its end says of missing units what stands here already.
        is_said = last is not None and last.state == "incomplete" and num_missing
        if self.state != "complete" and last is not None and last.cause and not is_said:
            notes.append(f"The last run ended so: {last.cause}")
        if self.num_rows_unrecorded:
            notes.append(
                f"No run record speaks of {self.num_rows_unrecorded:,} of the committed rows, "
                "because their run was stopped or killed just then or is still at work. Speed, "
                "cost and runs are without them."
            )
        if self.num_foreign_records:
            notes.append(
                f"{format_count(self.num_foreign_records, 'run record')} "
                f"{'was' if self.num_foreign_records == 1 else 'were'} written by another version "
                "of rgpt-batch, and left out here."
            )
        if self.quality_missing:
            notes.append(self.quality_missing)
        return tuple(notes)


def gather(
    store: Store,
    *,
    qrels: str | None = None,
    baseline: str | None = None,
    baseline_score_column: str | None = None,
    metrics: str = DEFAULT_METRICS,
    price_per_hour: float | None = None,
    memory_gib: float = DEFAULT_MEMORY_GIB,
    temp_folder: str | None = None,
) -> Report:
    """Read what an output folder tells of its job; it need not be complete.

    Args:
        store: The output folder.
        qrels: Judgements; adds quality.
        baseline: A run or a scored output to compare with.
        baseline_score_column: See ranking.evaluate.
        metrics: See ranking.evaluate.
        price_per_hour: Of one worker's GPUs; adds cost.
        memory_gib: What DuckDB may hold in memory.
        temp_folder: Where DuckDB puts what does not fit.

    Raises:
        ConfigError: No job was planned in the folder, or the judgements cannot be used.
        ShardError: A file cannot be read.
    """
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(f"{store.location}: no job was planned here; nothing to report.")
    units = {unit.unit_id: unit for unit in manifest.units}
    listing = store.listing()
    committed = {key: file for key, file in listing.files.items() if key in units}
    is_complete = listing.problem is None
    records, num_foreign_records = read_records(store)
    rows, footer, quality, quality_missing = None, None, None, None
    with (
        local_files(list(committed.values()), temp_folder) as files,
        open_database(memory_gib, temp_folder) as connection,
    ):
        if files:
            rows = row_facts(connection, files, manifest)
            footer = read_footer(files[0].path)[0]
        if qrels is not None and is_complete and rows is not None:
            quality = assess(
                connection,
                files,
                manifest,
                store.location,
                qrels=qrels,
                baseline=baseline,
                baseline_score_column=baseline_score_column,
                metrics=metrics,
                memory_gib=memory_gib,
                temp_folder=temp_folder,
            )
        elif qrels is not None:
            quality_missing = (
                "Not evaluated: the job has not finished, and a ranking that lacks pairs would "
                "look worse than it is."
            )
    runs = tuple(run_facts(number, record) for number, record in enumerate(records, 1))
    reported = {unit.unit_id for record in records for unit in record.units}
    last = records[-1] if records else None
    return Report(
        output=store.location,
        state="complete" if is_complete else _state(store),
        false_success=listing.problem if listing.is_declared else None,
        manifest=manifest,
        num_units_committed=len(committed),
        num_rows_committed=sum(units[unit_id].num_rows for unit_id in committed),
        rows=rows,
        runs=runs,
        records=tuple(records),
        num_foreign_records=num_foreign_records,
        num_rows_unrecorded=sum(
            units[unit_id].num_rows for unit_id in committed if unit_id not in reported
        ),
        failures=tuple(f for f in store.read_failures() if f.unit_id not in committed),
        speed=_speed(runs, records),
        model=footer.model if footer else None,
        config=last.config if last else None,
        versions=footer.versions if footer else last.versions if last else {},
        cost=None if price_per_hour is None else _cost(runs, price_per_hour),
        quality=quality,
        quality_missing=quality_missing,
    )


def _state(store: Store) -> str:
    """Say what status.json says; a job that was killed still says that it runs."""
    state = (store.read_status() or {}).get("state", "planned")
    return "unfinished" if state in ("running", "complete") else str(state)


def _speed(runs: Sequence[RunFacts], records: Sequence[RunRecord]) -> Speed | None:
    done = [run for run in runs if run.num_units]
    if not done:
        return None
    seconds = scoring_seconds(records)
    num_prompt_tokens = sum(run.num_prompt_tokens for run in done)
    engine_seconds = sum(run.engine_seconds for run in done)
    # A run's fraction has the time of its workers as denominator.
    worker_seconds = sum(
        run.engine_seconds / run.engine_busy_fraction for run in done if run.engine_busy_fraction
    )
    return Speed(
        pairs_per_second=sum(run.num_rows for run in done) / seconds,
        prompt_tokens_per_second=num_prompt_tokens / seconds,
        engine_busy_fraction=engine_seconds / worker_seconds if worker_seconds else 0.0,
        mean_prompt_tokens=num_prompt_tokens / max(1, sum(run.num_prompts for run in done)),
    )


def _cost(runs: Sequence[RunFacts], price_per_hour: float) -> Cost:
    worker_hours = sum(run.worker_hours for run in runs)
    total = worker_hours * price_per_hour
    num_rows = sum(run.num_rows for run in runs)
    num_tokens = sum(run.num_prompt_tokens for run in runs)
    engine_hours = sum(run.engine_seconds for run in runs) / 3600
    return Cost(
        price_per_hour=price_per_hour,
        worker_hours=worker_hours,
        total=total,
        per_million_pairs=total / num_rows * 1e6 if num_rows else None,
        per_million_prompt_tokens=total / num_tokens * 1e6 if num_tokens else None,
        idle_fraction=max(0.0, 1 - engine_hours / worker_hours) if worker_hours else 0.0,
    )
