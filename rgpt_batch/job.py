"""The main job: what remains of a plan → executor → summary and exit code."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rgpt_batch.config import JobConfig
from rgpt_batch.errors import CommitError, ConfigError, Interrupted, ManifestMismatch
from rgpt_batch.executors import create_executor
from rgpt_batch.manifest import (
    Manifest,
    differences,
    fingerprint,
    installed_versions,
    job_identity,
)
from rgpt_batch.model_files import pinned
from rgpt_batch.plan import inspect_shards, plan_units, resolve_inputs
from rgpt_batch.progress import ProgressDisplay, Tally
from rgpt_batch.records import RejectionReason, UnitFailure, UnitReport
from rgpt_batch.score_file import check_pass_through, read_footer
from rgpt_batch.store import Store, open_store
from rgpt_batch.store.base import CommittedFile
from rgpt_batch.unit_runner import UnitRunner

OnChange = Literal["refuse", "overwrite"]

EXIT_COMPLETE = 0
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """How a run of a job ended.

    Attributes:
        num_rows_before: Rows that earlier runs had committed.
        num_rows_scored: Rows that this run committed, rejected ones included.
        num_rejected: Rejected rows of the whole output, per reason.
        problems: Why exit_code is not 0, one sentence each.
        engine_busy_fraction: Share of the workers' time in which an engine was at work.
    """

    output: str
    exit_code: int
    num_units: int
    num_rows: int
    num_rows_before: int
    num_rows_scored: int
    num_rejected: dict[str, int]
    num_truncated_rows: int
    num_prompt_tokens: int
    seconds: float
    pairs_per_second: float
    engine_busy_fraction: float
    failures: tuple[UnitFailure, ...]
    problems: tuple[str, ...]


def plan_job(config: JobConfig, inputs: Sequence[str], output: str) -> tuple[JobConfig, Manifest]:
    """Find out what a job has to do, without writing anything.

    Returns:
        The configuration with the model pinned to a commit, and the plan.

    Raises:
        ConfigError: Input, output or configuration is wrong.
        ShardError: An input file cannot be used.
    """
    check_pass_through(config.output.pass_through)
    paths = resolve_inputs(inputs)
    target = Path(output).absolute()
    if inside := [path for path in paths if target in Path(path).parents]:
        raise ConfigError(f"{inside[0]}: an input file lies in the output folder {target}.")
    shards = inspect_shards(paths, config.input, config.output.pass_through)
    config = config.model_copy(update={"model": pinned(config.model)})
    identity = job_identity(config, shards)
    manifest = Manifest(
        fingerprint=fingerprint(identity),
        identity=identity,
        columns=shards[0].columns,
        units=tuple(plan_units(shards, config.units)),
    )
    return config, manifest


def run_job(
    config: JobConfig,
    inputs: Sequence[str],
    output: str,
    *,
    on_change: OnChange = "refuse",
    quiet: bool = False,
) -> JobSummary:
    """Score every pair of the input; resume where an earlier run stopped.

    Args:
        config: What to score with; see load_config.
        inputs: Files, folders or glob patterns.
        output: A folder; created if missing.
        on_change: What to do where the folder holds the work of a job with another fingerprint.
        quiet: Show no progress.

    Raises:
        ConfigError, ShardError: See plan_job.
        ManifestMismatch: The folder belongs to another job, and on_change is refuse.
        EngineError: No engine starts.
        Interrupted: SIGINT or SIGTERM came. What is committed stays.
    """
    config, planned = plan_job(config, inputs, output)
    store = open_store(output)
    manifest = _adopt(store, planned, on_change)
    committed = store.committed()
    remaining = [unit for unit in manifest.units if unit.unit_id not in committed]
    num_rows_before = manifest.num_rows - sum(unit.num_rows for unit in remaining)
    tally = Tally(
        num_units=len(manifest.units),
        num_rows=manifest.num_rows,
        num_units_before=len(manifest.units) - len(remaining),
        num_rows_before=num_rows_before,
    )
    run = _Run(store, manifest, config)
    started = time.perf_counter()
    try:
        if remaining:
            make_worker = functools.partial(
                UnitRunner, config, manifest.columns, manifest.fingerprint, store.location
            )
            with (
                create_executor(config) as executor,
                _signals_raise(),
                ProgressDisplay(tally, store, quiet=quiet) as display,
            ):
                for outcome in executor.run(remaining, make_worker):
                    run.add(outcome)
                    display.add(outcome)
        summary = _finish(run, tally, time.perf_counter() - started)
    except BaseException as error:
        state = "stopped" if isinstance(error, Interrupted) else "failed"
        run.close(state, tally, {"cause": f"{type(error).__name__}: {error}"})
        raise
    state = "complete" if summary.exit_code == EXIT_COMPLETE else "incomplete"
    run.close(state, tally, {"summary": asdict(summary)})
    return summary


class _Run:
    """One run of the command, and the record that it leaves."""

    def __init__(self, store: Store, manifest: Manifest, config: JobConfig) -> None:
        self.store = store
        self.manifest = manifest
        self.config = config
        self.reports: list[UnitReport] = []
        self.failures: list[UnitFailure] = []
        self._started_at = time.time()
        self._run_id = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:8]}"

    def add(self, outcome: UnitReport | UnitFailure) -> None:
        if isinstance(outcome, UnitReport):
            self.reports.append(outcome)
        else:
            self.failures.append(outcome)

    def close(self, state: str, tally: Tally, ending: dict[str, Any]) -> None:
        self.store.write_status(tally.status(state))
        self.store.write_run(
            self._run_id,
            {
                "run_id": self._run_id,
                "state": state,
                "fingerprint": self.manifest.fingerprint,
                "started_at": self._started_at,
                "finished_at": time.time(),
                "config": self.config.model_dump(mode="json"),
                "versions": installed_versions(),
                **ending,
                "units": [asdict(report) for report in self.reports],
            },
        )


def _adopt(store: Store, planned: Manifest, on_change: OnChange) -> Manifest:
    """Return the plan that is in force in the folder; freeze the new one if there is none."""
    try:
        found = store.load_manifest()
        if found is not None and found.fingerprint != planned.fingerprint:
            raise ManifestMismatch(
                f"{store.location}: holds the scores of another job:\n"
                f"{differences(found.identity, planned.identity)}\n"
                "Use another output folder, or --on-change overwrite to delete them."
            )
    except ManifestMismatch:
        if on_change == "refuse" or not store.has_manifest():
            raise
        store.clear()
        found = None
    if found is None:
        store.save_manifest(planned)
        found = store.load_manifest() or planned
    return found


def _finish(run: _Run, tally: Tally, seconds: float) -> JobSummary:
    """Compare what is published with the plan; declare success if nothing is missing."""
    committed = run.store.committed()
    with ThreadPoolExecutor(max_workers=8) as pool:
        files = dict(zip(committed, pool.map(_describe_file, committed.values()), strict=True))
    num_rejected: Counter[str] = Counter()
    for file in files.values():
        num_rejected.update(file["num_rejected"])
    missing = [unit for unit in run.manifest.units if unit.unit_id not in files]
    problems = _problems(run, files, missing, num_rejected)
    run.store.write_failures(run.failures)
    if not problems:
        run.store.write_success(
            {
                "fingerprint": run.manifest.fingerprint,
                "num_units": len(files),
                "num_rows": run.manifest.num_rows,
                "num_rejected": dict(num_rejected),
                "files": files,
            }
        )
    pairs_per_second, _, _ = tally.rates()
    return JobSummary(
        output=run.store.location,
        exit_code=EXIT_INCOMPLETE if problems else EXIT_COMPLETE,
        num_units=len(run.manifest.units),
        num_rows=run.manifest.num_rows,
        num_rows_before=tally.num_rows_before,
        num_rows_scored=tally.num_rows_done,
        num_rejected=dict(num_rejected),
        num_truncated_rows=sum(report.num_truncated_rows for report in run.reports),
        num_prompt_tokens=tally.num_prompt_tokens,
        seconds=seconds,
        pairs_per_second=pairs_per_second,
        engine_busy_fraction=_engine_busy_fraction(run.reports),
        failures=tuple(run.failures),
        problems=tuple(problems),
    )


def _problems(
    run: _Run, files: dict[str, Any], missing: Sequence[Any], num_rejected: Counter[str]
) -> list[str]:
    problems = []
    if missing:
        num_rows = sum(unit.num_rows for unit in missing)
        problems.append(
            f"{len(missing)} of {len(run.manifest.units)} units ({num_rows:,} rows) are not "
            "scored. Running the same command again tries them once more."
        )
    planned = {unit.unit_id for unit in run.manifest.units}
    for unit_id, file in files.items():
        if unit_id not in planned or file["fingerprint"] != run.manifest.fingerprint:
            problems.append(
                f"{file['name']} belongs to another job. Delete it and run the same command again."
            )
    limit = run.config.output.max_rejected_fraction
    if num_rejected.total() > limit * run.manifest.num_rows:
        problems.append(
            f"{num_rejected.total():,} of {run.manifest.num_rows:,} rows are rejected, more than "
            f"output.max_rejected_fraction={limit:g} allows."
        )
    if num_unreadable := num_rejected[RejectionReason.UNREADABLE]:
        problems.append(
            f"{num_unreadable:,} rows stand on damaged pages of their input file and have no score "
            "and no ids. Repair the file and score it again."
        )
    return problems


def _describe_file(file: CommittedFile) -> dict[str, Any]:
    footer, metadata = read_footer(file.path)
    if metadata.num_rows != footer.num_rows:
        raise CommitError(f"{file.path}: {metadata.num_rows} rows, its footer says otherwise.")
    with open(file.path, "rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "name": os.path.basename(file.path),
        "size": file.size,
        "sha256": checksum,
        "num_rows": footer.num_rows,
        "num_rejected": footer.num_rejected,
        "fingerprint": footer.fingerprint,
    }


def _engine_busy_fraction(reports: Sequence[UnitReport]) -> float:
    """Engine seconds over the time from a worker's first engine call to its last."""
    busy = total = 0.0
    for worker in {report.worker for report in reports}:
        mine = [report for report in reports if report.worker == worker]
        first = min(report.started_at + report.read_seconds for report in mine)
        last = max(report.finished_at - report.commit_seconds for report in mine)
        busy += sum(report.engine_seconds for report in mine)
        total += last - first
    return min(1.0, busy / total) if total > 0 else 0.0


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into Interrupted; a second one acts as the system does."""
    previous: dict[int, Any] = {}

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for other in previous:
            signal.signal(other, signal.SIG_DFL)
        raise Interrupted(signum)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, interrupt)
    except ValueError:
        # Signals reach the main thread alone; in another one the caller has to stop the job.
        pass
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
