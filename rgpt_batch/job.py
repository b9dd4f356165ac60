"""The main job: what remains of a plan → executor → summary and exit code."""

from __future__ import annotations

import functools
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rgpt_batch.config import InputConfig, JobConfig
from rgpt_batch.errors import (
    CommitError,
    ConfigError,
    EngineError,
    Interrupted,
    ManifestMismatch,
    ShardError,
    StorageError,
)
from rgpt_batch.executors import create_executor
from rgpt_batch.formats.relations import Relations
from rgpt_batch.job_run import EXIT_COMPLETE, Run, finish, recorded_config
from rgpt_batch.job_run import JobSummary as JobSummary
from rgpt_batch.joined_input import (
    TextTables,
    is_joined,
    join_tables,
    joined_columns,
    open_tables,
    tables_identity,
)
from rgpt_batch.manifest import (
    Manifest,
    differences,
    fingerprint,
    job_identity,
    shards_identity,
)
from rgpt_batch.model_files import pinned
from rgpt_batch.parity import check_parity, require_parity
from rgpt_batch.plan import inspect_shards, plan_units, resolve_inputs
from rgpt_batch.prefix_caching import decide_prefix_caching
from rgpt_batch.progress import ProgressDisplay, Tally
from rgpt_batch.records import WorkUnit
from rgpt_batch.reuse import build_index, drop_indexes, find_earlier_scores
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
    target = _absolute(output)
    paths = resolve_inputs(inputs)
    _check_apart(paths, inputs, target)
    shards = inspect_shards(paths, config.input, config.output.pass_through)
    config = config.model_copy(update={"model": pinned(config.model)})
    identity = job_identity(config, shards[0].columns, shards_identity(shards))
    manifest = Manifest(
        fingerprint=fingerprint(identity),
        identity=identity,
        columns=shards[0].columns,
        units=tuple(plan_units(shards, config.units)),
    )
    return config, manifest


def _plan_joined(
    config: JobConfig, inputs: Sequence[str], tables: TextTables, output: str
) -> tuple[JobConfig, Manifest, Relations]:
    """Do the same for an input whose texts stand elsewhere; its units are known after the join."""
    check_pass_through(config.output.pass_through)
    relations = open_tables(inputs, tables, config)
    found = [t for t in (relations.candidates, relations.queries, relations.documents) if t]
    paths = [path for table in found for path in table.paths]
    _check_apart(paths, [table.origin for table in found], _absolute(output))
    config = config.model_copy(update={"model": pinned(config.model)})
    columns = joined_columns(config)
    identity = job_identity(config, columns, tables_identity(relations))
    planned = Manifest(
        fingerprint=fingerprint(identity), identity=identity, columns=columns, units=()
    )
    return config, planned, relations


def _check_apart(paths: Sequence[str], inputs: Sequence[str], target: str) -> None:
    """Raise ConfigError where input and output are in each other's way."""
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


def _absolute(location: str) -> str:
    """Return a folder's full path, or its URI as it is.

    Raises:
        ConfigError: The URI cannot be used.
    """
    check_location(location)
    return location if is_uri(location) else str(Path(location).resolve())


def run_job(
    config: JobConfig,
    inputs: Sequence[str],
    output: str,
    *,
    on_change: OnChange = "refuse",
    tables: TextTables | None = None,
    reuse: str | None = None,
    quiet: bool = False,
    only: Collection[str] | None = None,
) -> JobSummary:
    """Score every pair of the input; resume where an earlier run stopped.

    Args:
        config: What to score with; see load_config.
        inputs: Files, folders or glob patterns. With tables, the one table of candidates.
        output: A folder; created if missing.
        on_change: What to do where the folder holds the work of a job with another fingerprint.
        tables: Where the texts are, if the input has ids alone; see joined_input.
        reuse: The output folder of an earlier job. Pairs with the same texts get its scores.
        quiet: Show no progress.
        only: Ids of the units to run; None runs all that remain.

    Raises:
        ConfigError, ShardError: See plan_job and reuse.find_earlier_scores.
        ManifestMismatch: The folder belongs to another job, and on_change is refuse; or the earlier
            scores were made with other settings.
        ParityError: config.parity asks for a check, and the engine fails it.
        EngineError: No engine starts.
        CommitError, StorageError: The output, or an object store, cannot be used.
        Interrupted: SIGINT or SIGTERM came. What is committed stays.
    """
    if is_uri(output) and (reuse is not None or tables is not None):
        raise ConfigError(
            f"{output}: --reuse and tables of texts need an output folder on a file system, since "
            "sorted scores and joined pairs are kept there. Leave them out, or use a folder."
        )
    if reuse is not None and is_uri(reuse):
        raise ConfigError(f"{reuse}: --reuse reads folders on a file system. Copy it to one.")
    report = _say_nothing if quiet else _say
    relations = None
    if tables is None:
        config, planned = plan_job(config, inputs, output)
    else:
        config, planned, relations = _plan_joined(config, inputs, tables, output)
    store = open_store(output)
    earlier = None
    if reuse is not None:
        earlier = find_earlier_scores(reuse, store, planned.identity, config)
    with _signals_raise():
        manifest = _find_plan(store, planned, on_change)
        if manifest is None:
            if relations is not None:
                report("joining candidates with their texts")
                planned = _with_units(planned, relations, store, config)
            store.save_manifest(planned)
            manifest = store.load_manifest() or planned
    committed = store.committed()
    missing = [unit for unit in manifest.units if unit.unit_id not in committed]
    remaining = [unit for unit in missing if only is None or unit.unit_id in only]
    tally = Tally(
        num_units=len(manifest.units),
        num_rows=manifest.num_rows,
        num_units_before=len(manifest.units) - len(missing),
        num_rows_before=manifest.num_rows - sum(unit.num_rows for unit in missing),
        is_reusing=earlier is not None,
    )
    if remaining:
        with suppress(ShardError):  # The unit's worker will report it.
            config = decide_prefix_caching(config, manifest.columns, remaining)
    run = Run(store, manifest, config, tally, earlier)
    try:
        run.open()
        with _signals_raise():
            if remaining:
                _score(run, remaining, report, quiet=quiet)
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
    if state == "complete":
        drop_indexes(store)
    run.close(state, {"summary": asdict(summary)})
    return summary


def retry_failed(output: str, *, quiet: bool = False) -> JobSummary:
    """Run the failed units of a job again, with the input and the configuration of its last run.

    Raises:
        ConfigError: The folder holds no job, or no record of a run; and see run_job.
    """
    store = open_store(output)
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(f"{output}: no job was planned here; nothing to retry.")
    if is_joined(manifest.identity):
        raise ConfigError(
            f"{output}: this job joined three tables. Run the same score command again; it tries "
            "failed units as well."
        )
    failed = {failure.unit_id for failure in store.read_failures()}
    return run_job(recorded_config(store), manifest.inputs, output, quiet=quiet, only=failed)


def _score(
    run: Run, units: Sequence[WorkUnit], report: Callable[[str], None], *, quiet: bool
) -> None:
    executor = create_executor(run.config)
    preparation: str | None = None

    def activity() -> str:
        return preparation or executor.activity

    with ProgressDisplay(run.tally, run.store, activity, quiet=quiet) as display, executor:
        if run.config.parity.num_pairs:
            preparation = "checking parity"
            run.parity = check_parity(run.config, run.manifest, run.store, report)
            require_parity(run.parity)
        index = None
        if run.earlier is not None:
            preparation = "sorting earlier scores"
            index = build_index(run.earlier, run.store)
        preparation = None
        make_worker = functools.partial(
            UnitRunner,
            run.config,
            run.manifest.columns,
            run.manifest.fingerprint,
            run.store.location,
            score_index=index,
        )
        for outcome in executor.run(units, make_worker):
            run.add(outcome)
            display.add(outcome)


def _say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def _say_nothing(message: str) -> None:
    pass


def _with_units(
    planned: Manifest, relations: Relations, store: Store, config: JobConfig
) -> Manifest:
    """Join the tables and cut the pairs into units."""
    folder = join_tables(relations, planned.fingerprint, store.location, config)
    shards = inspect_shards(resolve_inputs([folder]), InputConfig(), config.output.pass_through)
    return replace(planned, units=tuple(plan_units(shards, config.units)))


def _find_plan(store: Store, planned: Manifest, on_change: OnChange) -> Manifest | None:
    """Return the plan that is in force in the folder, if there is one."""
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
        return None
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
