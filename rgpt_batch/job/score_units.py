"""The units that remain → committed files: executor, progress, logs and metrics of one run."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack

from rgpt_batch.checks.parity import check_parity, require_parity
from rgpt_batch.executors import create_executor
from rgpt_batch.executors.process_log import RunLogs
from rgpt_batch.executors.unit_runner import UnitRunner
from rgpt_batch.formatting import format_count
from rgpt_batch.job.metrics import JobMetrics, open_sinks
from rgpt_batch.job.progress import ProgressDisplay
from rgpt_batch.job.restore import scored_store
from rgpt_batch.job.run import Run
from rgpt_batch.job.terminal import Terminal
from rgpt_batch.output.begun import Begun
from rgpt_batch.output.claims import Claims
from rgpt_batch.planning.pair_shards import Report
from rgpt_batch.records import WorkUnit
from rgpt_batch.reuse.earlier import build_index


def score_units(
    run: Run,
    units: Sequence[WorkUnit],
    terminal: Terminal,
    report: Report,
    claims: Claims | None,
    *,
    quiet: bool,
    capture_output: bool,
) -> None:
    """Score units with the executor of the job's configuration, and note each outcome in the run.

    Args:
        run: Of the command.
        units: What remains.
        terminal: Where progress is shown.
        report: Is told what else there is to tell.
        claims: What shares the units with other processes; None where nobody else is there.
        quiet: Show no progress.
        capture_output: See run_job.

    Raises:
        ParityError: The configuration asks for a check, and the engine fails it.
        EngineError: No engine starts.
    """
    logs = RunLogs(output=run.store.location, run_id=run.run_id)
    is_alone = run.config.executor.kind == "local" and claims is None
    begun = Begun(run.store, run.run_id) if is_alone else None
    if begun:
        _tell_of_unfinished(units, begun, report)
    executor = create_executor(run.config, logs, begun)
    preparation: str | None = None

    def activity() -> str:
        return preparation or executor.activity

    run.activity = activity
    with ExitStack() as stack:
        stack.callback(logs.drop_empty)
        if capture_output:
            stack.enter_context(terminal.captured(logs, executor.log_name))
        display = stack.enter_context(
            ProgressDisplay(run.tally, run.store, activity, terminal, quiet=quiet)
        )
        stack.enter_context(executor)
        if begun:
            stack.enter_context(begun)
        metrics = stack.enter_context(
            JobMetrics(run.run_id, run.tally, executor, open_sinks(run.config), terminal.say)
        )
        if run.config.parity.num_pairs:
            preparation = "checking parity"
            run.parity = check_parity(run.config, run.manifest, run.store, report)
            require_parity(run.parity)
        index = None
        if run.earlier is not None:
            preparation = "sorting earlier scores"
            index = build_index(run.earlier, run.store)
        preparation = None
        config = run.config
        if run.manifest.clustered:
            # By these, rows find back into input order.
            config = config.with_options({"output.source": True})
        make_worker = functools.partial(
            UnitRunner,
            config,
            run.manifest.columns,
            run.manifest.fingerprint,
            scored_store(run.store, run.manifest).location,
            score_index=index,
        )
        for outcome in executor.run(units, make_worker, claims):
            run.add(outcome)
            display.add(outcome)
            metrics.add(outcome)


def _tell_of_unfinished(units: Sequence[WorkUnit], begun: Begun, report: Report) -> None:
    """Tell of units that may be what has ended earlier runs."""
    often = sorted(unit.unit_id for unit in units if begun.times(unit.unit_id) > 1)
    if often:
        named = ", ".join(often[:3]) + (" …" if len(often) > 3 else "")
        report(
            f"{format_count(len(often), 'unit')} ({named}) not finished by two runs and more that "
            "have begun with it: should a row end the process again, it does so after all others. "
            "--executor ray finds such rows and leaves them out"
        )
