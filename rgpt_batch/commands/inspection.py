"""Commands that look at an output folder: status, verify."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict

import click

from rgpt_batch.commands.engine_output import engine_output_kept
from rgpt_batch.commands.text import (
    OutputFolder,
    json_option,
    print_facts,
    print_json,
)
from rgpt_batch.errors import ConfigError

_REPORT_SECONDS = 2.0


@click.command(
    short_help="Show how far a job is.",
    epilog="Example: rgpt-batch status s3://bucket/scored --watch",
)
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@click.option(
    "--watch", is_flag=True, help="Look again every two seconds until the job ends, or Ctrl-C."
)
@json_option
def status(output: str, watch: bool, as_json: bool) -> int:
    """Show how far the job of an output folder is."""
    from rgpt_batch.commands.status_view import StatusView, watch_job
    from rgpt_batch.output import open_store

    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other.")
    store = open_store(output)
    manifest = store.load_manifest() if store.has_manifest() else None
    if manifest is None:
        raise ConfigError(f"{output}: no job was planned here.")
    if watch:
        watch_job(store, manifest)
        return 0
    view = StatusView.of(store, manifest)
    if as_json:
        print_json(view.facts)
        return 0
    for line in view.lines:
        click.echo(line)
    return 0


@click.command(
    short_help="Check an output folder file by file.",
    epilog="Example: rgpt-batch verify scored/ --sample 50",
)
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random rows to score again with the float32 transformers reference.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    help="Largest difference of a sampled score. [default: float32 0.001, float16 0.1, else "
    "0.6; logits in 16 bit: times their standard deviation where that is above 1]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses the sample.")
@json_option
def verify(output: str, sample: int, tolerance: float | None, seed: int, as_json: bool) -> int:
    """Check files, rows, ids and checksums of an output folder, and on request its scores."""
    from rgpt_batch.checks.verify import verify_output
    from rgpt_batch.formatting import format_count, with_unit
    from rgpt_batch.job.run import EXIT_INCOMPLETE

    _share_cores()
    with engine_output_kept("verify") as terminal:
        result = verify_output(
            output,
            num_rescored=sample,
            tolerance=tolerance,
            seed=seed,
            report=_sometimes(terminal.say),
        )
    exit_code = EXIT_INCOMPLETE if result.problems else 0
    if as_json:
        print_json({**asdict(result), "exit_code": exit_code})
        return exit_code
    for problem in result.problems:
        click.echo(f"problem      {problem}")
    facts = {
        "checked": f"{format_count(result.num_files, 'file')}, "
        f"{format_count(result.num_rows, 'row')}"
    }
    if result.num_rescored:
        facts["rescored"] = (
            f"{result.num_rescored:,} rows, largest difference "
            f"{with_unit(f'{result.max_score_error:.2g}', result.score_unit)}"
        )
    facts["result"] = (
        format_count(len(result.problems), "problem") if result.problems else "all is well"
    )
    print_facts(facts)
    return exit_code


def _share_cores() -> None:
    """Let torch, which is not loaded yet, use the cores of this process, and no more than that.

    OpenMP's threads wait for each other in a loop: where other programs use the cores too, that
    takes several times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))


def _sometimes(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return what says progress, but not every line of it."""
    last = -_REPORT_SECONDS

    def report(message: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            say(message)

    return report
