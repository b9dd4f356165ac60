"""The main job: what remains of a plan → executor → summary and exit code."""

from __future__ import annotations

import functools
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rgpt_batch.config import JobConfig
from rgpt_batch.errors import (
    CommitError,
    ConfigError,
    EngineError,
    Interrupted,
    ManifestMismatch,
    StorageError,
)
from rgpt_batch.executors import create_executor
from rgpt_batch.job_run import EXIT_COMPLETE, Run, finish
from rgpt_batch.job_run import JobSummary as JobSummary
from rgpt_batch.manifest import (
    Manifest,
    differences,
    fingerprint,
    job_identity,
)
from rgpt_batch.model_files import pinned
from rgpt_batch.plan import inspect_shards, plan_units, resolve_inputs
from rgpt_batch.progress import ProgressDisplay, Tally
from rgpt_batch.records import WorkUnit
from rgpt_batch.score_file import check_pass_through
from rgpt_batch.store import Store, open_store
from rgpt_batch.unit_runner import UnitRunner
from rgpt_batch.uris import check_location, is_inside, is_uri

OnChange = Literal["refuse", "overwrite"]


def plan_job(config: JobConfig, inputs: Sequence[str], output: str) -> tuple[JobConfig, Manifest]:
    """Find out what a job has to do, without writing anything.

    Returns:
        The configuration with the model pinned to a commit, and the plan.

    Raises:
        ConfigError: Input, output or configuration is wrong.
        ShardError: An input file cannot be used.
    """
    check_pass_through(config.output.pass_through)
    check_location(output)
    target = output if is_uri(output) else str(Path(output).resolve())
    paths = resolve_inputs(inputs)
    if inside := [path for path in paths if is_inside(path, target)]:
        raise ConfigError(f"{inside[0]}: an input file lies in the output folder {target}.")
    # A resumed job would find its own output among its input.
    folders = [
        name if is_uri(name) else str(Path(name).resolve())
        for name in inputs
        if is_uri(name) or Path(name).is_dir()
    ]
    if around := [folder for folder in folders if is_inside(target, folder)]:
        raise ConfigError(f"{target}: the output folder lies in the input folder {around[0]}.")
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
        CommitError, StorageError: The output, or an object store, cannot be used.
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
    run = Run(store, manifest, config, tally)
    try:
        with _signals_raise():
            if remaining:
                _score(run, remaining, quiet)
            summary = finish(run)
    except BaseException as error:
        state = "stopped" if isinstance(error, Interrupted) else "failed"
        if isinstance(error, Interrupted | EngineError | CommitError | StorageError | OSError):
            error.add_note(
                "Committed units are safe; run the same command again to score the rest."
            )
        # Where even the record cannot be written, the error itself says more.
        with suppress(OSError, CommitError):
            run.close(state, {"cause": f"{type(error).__name__}: {error}"})
        raise
    state = "complete" if summary.exit_code == EXIT_COMPLETE else "incomplete"
    run.close(state, {"summary": asdict(summary)})
    return summary


def _score(run: Run, units: Sequence[WorkUnit], quiet: bool) -> None:
    make_worker = functools.partial(
        UnitRunner, run.config, run.manifest.columns, run.manifest.fingerprint, run.store.location
    )
    run.store.clear_failures()
    executor = create_executor(run.config)
    with (
        ProgressDisplay(run.tally, run.store, lambda: executor.activity, quiet=quiet) as display,
        executor,
    ):
        for outcome in executor.run(units, make_worker):
            run.add(outcome)
            display.add(outcome)


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


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into Interrupted; a second one acts as the system does."""
    previous: dict[int, Any] = {}
    received: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for other in previous:
            signal.signal(other, signal.SIG_DFL)
        # An engine that is just starting may catch every Exception; this is none.
        raise KeyboardInterrupt

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, interrupt)
    except ValueError:
        # Signals reach the main thread alone; in another one the caller has to stop the job.
        pass
    try:
        yield
    except BaseException as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
