"""The main job: what remains of a plan → executor → summary and exit code."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import get_args

from rgpt_batch.config.arguments import Location, as_location, as_locations, check_choice
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import (
    CommitError,
    ConfigError,
    EngineError,
    Interrupted,
    ShardError,
    StorageError,
)
from rgpt_batch.importing.joined import TextTables
from rgpt_batch.job.finish import finish
from rgpt_batch.job.order import advise, with_order
from rgpt_batch.job.plan import (
    Job,
    OnChange,
    check_places,
    freeze,
    identify,
    open_input,
    reopen_input,
)
from rgpt_batch.job.progress import Tally
from rgpt_batch.job.restore import restore, unscored
from rgpt_batch.job.run import EXIT_COMPLETE, Run
from rgpt_batch.job.run import JobSummary as JobSummary
from rgpt_batch.job.score_units import score_units
from rgpt_batch.job.signals import signals_raise
from rgpt_batch.job.terminal import Terminal
from rgpt_batch.output import Store, open_store
from rgpt_batch.output.runs import recorded_config
from rgpt_batch.planning.pair_shards import Report
from rgpt_batch.planning.prefix_caching import decide_prefix_caching
from rgpt_batch.ranking.top import TopPairs
from rgpt_batch.reuse.earlier import EarlierScores, drop_indexes, find_earlier_scores
from rgpt_batch.storage.written_files import check_output


def run_job(
    config: JobConfig,
    inputs: Location | Iterable[Location],
    output: Location,
    *,
    on_change: OnChange = "refuse",
    tables: TextTables | None = None,
    reuse: Location | None = None,
    join: bool = False,
    only: TopPairs | None = None,
    quiet: bool = False,
    capture_output: bool = False,
) -> JobSummary:
    """Score every pair of the input; resume where an earlier run stopped.

    Args:
        config: What to score with; see load_config.
        inputs: A file, folder or glob pattern, or several; paths or URIs. With tables, the one
            table of candidates.
        output: A folder or URI; created if missing.
        on_change: What to do where the folder holds the work of a job with another fingerprint.
        tables: Where the texts are, if the input has ids alone; see importing.joined.
        reuse: The output folder of an earlier job. Pairs with the same texts get its scores.
        join: Share the units with all other runs of the same command that join, wherever they are.
        only: Score the best pairs of an earlier ranking alone.
        quiet: Show no progress.
        capture_output: While units are scored, send what anything in this process prints to a log
            in the output folder, by its file descriptors 1 and 2; for commands. Workers on Ray have
            such logs in any case.

    Raises:
        ConfigError, ShardError: The input, the output or the configuration cannot be used.
        ManifestMismatch: The folder belongs to another job, and on_change is refuse; or the earlier
            scores were made with other settings.
        ParityError: config.parity asks for a check, and the engine fails it.
        EngineError: No engine starts.
        CommitError, StorageError: The output, or an object store, cannot be used.
        Interrupted: SIGINT or SIGTERM came. What is committed stays.
    """
    if not isinstance(config, JobConfig):
        raise ConfigError(
            f"config: expected a JobConfig, found {type(config).__name__}. load_config reads one."
        )
    check_choice(on_change, "on_change", get_args(OnChange))
    inputs, output = as_locations(inputs, "inputs"), as_location(output, "output")
    if reuse is not None:
        reuse = as_location(reuse, "reuse")
    check_places(output, tables=tables, reuse=reuse)
    if join and on_change == "overwrite":
        raise ConfigError(
            "--join does not go with --on-change overwrite: one process would delete what another "
            "has scored. Delete the output folder, or name another one."
        )
    if config.watch.metrics_file is not None:
        check_output(config.watch.metrics_file)
    store = open_store(output)
    terminal = Terminal(as_json=config.watch.log_format == "json")
    report = _say_nothing if quiet else terminal.say
    given = open_input(config, inputs, tables, only)
    config, source = with_order(config, given, store, report, only)
    if join and config.units.order != "input":
        raise ConfigError(
            "--join does not go with --order document: each process would make its own copy of the "
            "input. Use --order input."
        )
    job = identify(config, source, output)
    if not store.has_manifest() and not quiet:
        advise(config, source, report)
    earlier = None
    if reuse is not None:
        earlier = find_earlier_scores(reuse, store, job.identity)
        if earlier.problem is not None:
            report(f"reusing what is there of {reuse}: {earlier.problem}")
    return _run(
        job,
        store,
        terminal,
        report,
        on_change=on_change,
        earlier=earlier,
        join=join,
        quiet=quiet,
        capture_output=capture_output,
    )


def retry_failed(
    output: Location, *, quiet: bool = False, capture_output: bool = False
) -> JobSummary:
    """Run the failed units of a job again, with the input and the configuration of its last run.

    The options are run_job's.

    Raises:
        ConfigError: The folder holds no job, or no record of a run; and see run_job.
    """
    output = as_location(output, "output")
    store = open_store(output)
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(f"{output}: no job was planned here; nothing to retry.")
    config, failed = recorded_config(store, manifest), store.failed_unit_ids()
    job = identify(config, reopen_input(config, manifest.identity.input), output)
    terminal = Terminal(as_json=config.watch.log_format == "json")
    report = _say_nothing if quiet else terminal.say
    return _run(
        job, store, terminal, report, quiet=quiet, capture_output=capture_output, only=failed
    )


def _run(
    job: Job,
    store: Store,
    terminal: Terminal,
    report: Report,
    *,
    on_change: OnChange = "refuse",
    earlier: EarlierScores | None = None,
    join: bool = False,
    quiet: bool,
    capture_output: bool,
    only: Collection[str] | None = None,
) -> JobSummary:
    """Freeze the plan, score what remains of it, and finish.

    Args:
        job: What to score.
        store: The output folder.
        terminal: Where progress and warnings are shown.
        report: Is called with a line of text whenever there is progress to tell.
        on_change: See run_job.
        earlier: Scores to copy where texts are the same.
        join: See run_job.
        quiet: Show no progress.
        capture_output: See run_job.
        only: Ids of the units to run; None runs all that remain.
    """
    config = job.config
    with signals_raise():
        manifest = freeze(store, job, on_change, report)
        missing = unscored(store, manifest, store.withdraw_false_success())
    remaining = [unit for unit in missing if only is None or unit.unit_id in only]
    tally = Tally(
        num_units=len(manifest.scored_units),
        num_rows=manifest.num_rows,
        num_units_before=len(manifest.scored_units) - len(missing),
        num_rows_before=manifest.num_rows - sum(unit.num_rows for unit in missing),
        is_reusing=earlier is not None,
    )
    if remaining:
        with suppress(ShardError):  # The unit's worker will report it.
            config = decide_prefix_caching(config, manifest.columns, remaining)
    before = {unit.unit_id for unit in manifest.scored_units}
    before -= {unit.unit_id for unit in missing}
    run = Run(store, manifest, config, tally, before, terminal.say, earlier)
    terminal.facts["run"] = run.run_id
    try:
        run.open(has_work=bool(remaining))
        with signals_raise(), run.claims() if join else nullcontext() as claims:
            if remaining:
                score_units(
                    run,
                    remaining,
                    terminal,
                    report,
                    claims,
                    quiet=quiet,
                    capture_output=capture_output,
                )
            if manifest.clustered and not unscored(store, manifest):
                report("bringing rows back into input order")
                restore(store, manifest, config.input.join_memory_gib)
            run.activity = lambda: "checking what is committed"
            if claims:
                claims.wait_for_ending()
            summary = finish(run)
            if claims:
                claims.end(is_complete=summary.exit_code == EXIT_COMPLETE)
    except BaseException as error:
        state = "stopped" if isinstance(error, Interrupted) else "failed"
        if isinstance(error, Interrupted | EngineError | CommitError | StorageError | OSError):
            error.add_note(
                "Committed units are safe; run the same command again to score the rest."
            )
        run.close(state, {"cause": f"{type(error).__name__}: {error}"})
        raise
    state = "complete" if summary.exit_code == EXIT_COMPLETE else "incomplete"
    # An index that others may be about to open stays.
    if state == "complete" and (claims is None or claims.num_processes == 1):
        drop_indexes(store)
    run.close(state, {"summary": asdict(summary)})
    return summary


def _say_nothing(message: str) -> None:
    pass
