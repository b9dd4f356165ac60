"""Commands that score: score, retry-failed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rgpt_batch.commands.job_options import (
    job_options,
    load_job_config,
    text_tables,
    top_pairs,
)
from rgpt_batch.commands.text import (
    OutputFolder,
    format_rejected,
    json_option,
    print_facts,
    print_json,
)

if TYPE_CHECKING:
    from rgpt_batch.job.run import JobSummary


@click.command(
    short_help="Score all pairs, or those that remain.",
    epilog="Example: rgpt-batch score -c configs/bloom-560m.yaml -i pairs/ --output scored/",
)
@job_options
@json_option
def score(
    config: str | None,
    inputs: tuple[str, ...],
    output: str,
    queries: str | None,
    documents: str | None,
    on_change: Any,
    reuse: str | None,
    join: bool,
    only: str | None,
    top_k: int | None,
    quiet: bool,
    as_json: bool,
    **shortcuts: Any,
) -> int:
    """Score every pair of the input; resume where an earlier run stopped."""
    from rgpt_batch.job.run_job import run_job

    summary = run_job(
        load_job_config(config, **shortcuts),
        inputs,
        output,
        on_change=on_change,
        tables=text_tables(queries, documents),
        reuse=reuse,
        join=join,
        only=top_pairs(only, top_k),
        quiet=quiet,
        capture_output=True,
    )
    _print_summary(summary, as_json)
    return summary.exit_code


@click.command(
    "retry-failed",
    short_help="Score the failed units of a job once more.",
    epilog="Example: rgpt-batch retry-failed scored/",
)
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@click.option("--quiet", is_flag=True, help="Show no progress.")
@json_option
def retry_failed(output: str, quiet: bool, as_json: bool) -> int:
    """Score the failed units of an output folder with the input and options of its last run."""
    from rgpt_batch.job import run_job as job

    summary = job.retry_failed(output, quiet=quiet, capture_output=True)
    _print_summary(summary, as_json)
    return summary.exit_code


def _print_summary(summary: JobSummary, as_json: bool) -> None:
    from rgpt_batch.formatting import format_seconds

    if as_json:
        print_json(asdict(summary))
        return
    others = ""
    if summary.num_rows_by_others:
        others = f", {summary.num_rows_by_others:,} in others at the same time"
    facts = {
        "output": summary.output,
        "rows": f"{summary.num_rows:,}, of which {summary.num_rows_scored:,} in this run{others} "
        f"and {summary.num_rows_before:,} before",
        "rejected": format_rejected(summary.num_rejected),
    }
    if summary.parity:
        facts["parity"] = str(summary.parity)
    if summary.num_reused:
        facts["reused"] = f"{summary.num_reused:,} of {summary.num_rows:,} rows"
    if summary.num_rows_scored:
        facts["truncated"] = f"{summary.num_truncated_rows:,} documents in this run"
        facts["speed"] = (
            f"{summary.pairs_per_second:,.1f} pairs/s, engine busy "
            f"{summary.engine_busy_fraction:.0%}, {format_seconds(summary.seconds)} in all"
        )
        facts["engine"] = ", ".join(summary.engines)
    print_facts(facts)
    for reason in summary.passed_over:
        click.echo(f"note         {reason}", err=True)
    for failure in summary.failures:
        click.echo(f"failed       unit {failure.unit_id}: {failure.cause}", err=True)
    for problem in summary.problems:
        click.echo(f"problem      {problem}", err=True)
