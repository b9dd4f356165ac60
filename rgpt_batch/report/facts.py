"""Everything that a report says, before it is drawn and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rgpt_batch.database import DEFAULT_MEMORY_GIB, open_database
from rgpt_batch.errors import ConfigError
from rgpt_batch.output import Store
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.ranking.metrics import DEFAULT_METRICS
from rgpt_batch.records import UnitFailure
from rgpt_batch.report import notes
from rgpt_batch.report.copies import local_files
from rgpt_batch.report.estimate import Estimate, recorded_estimate
from rgpt_batch.report.quality import Quality, assess
from rgpt_batch.report.rates import Cost, Speed, cost_of, speed_of
from rgpt_batch.report.rows import RowFacts, row_facts
from rgpt_batch.report.runs import RunFacts, RunRecord, read_records, run_facts


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
        footer_engine: The method that a file of the output names; empty where there is no file.
        config: That of the last run.
        estimate: None where no plan of this job was recorded.
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
    footer_engine: tuple[str, ...]
    config: dict[str, Any] | None
    versions: dict[str, str]
    cost: Cost | None
    estimate: Estimate | None
    quality: Quality | None
    quality_missing: str | None

    @property
    def num_rows(self) -> int:
        """Rows of the input."""
        return self.manifest.num_rows

    @property
    def engines(self) -> tuple[str, ...]:
        """The methods that scored, as the runs' records tell or else a file of the output."""
        recorded = sorted({engine for run in self.runs for engine in run.engines})
        return tuple(recorded) or self.footer_engine

    @property
    def time_span(self) -> tuple[float, float] | None:
        """When the first run began and the last one ended, seconds since the epoch."""
        if not self.runs:
            return None
        return self.runs[0].started_at, self.runs[-1].started_at + self.runs[-1].seconds

    @property
    def alarm(self) -> str | None:
        """What makes the whole report worthless, if something does."""
        return notes.alarm(self)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before all else."""
        return notes.notes(self)


def gather(
    store: Store,
    *,
    qrels: str | None = None,
    baseline: str | None = None,
    baseline_score_column: str | None = None,
    metrics: str = DEFAULT_METRICS,
    price_per_hour: float | None = None,
    currency: str = "USD",
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
        currency: Of the price.
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
            unit.num_rows
            for unit in (manifest.scored_units if committed else ())
            if unit.unit_id not in reported and (manifest.clustered or unit.unit_id in committed)
        ),
        failures=tuple(f for f in store.read_failures() if f.unit_id not in committed),
        speed=speed_of(runs, records),
        model=footer.model if footer else None,
        footer_engine=(footer.engine,) if footer else (),
        config=last.config if last else None,
        versions=footer.versions if footer else last.versions if last else {},
        cost=None if price_per_hour is None else cost_of(runs, price_per_hour, currency),
        estimate=recorded_estimate(store, manifest),
        quality=quality,
        quality_missing=quality_missing,
    )


def _state(store: Store) -> str:
    """Say what status.json says; a job that was killed still says that it runs."""
    state = (store.read_status() or {}).get("state", "planned")
    return "unfinished" if state in ("running", "complete") else str(state)
