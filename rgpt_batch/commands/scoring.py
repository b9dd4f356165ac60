"""Commands that take a job's input and configuration: score, plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rgpt_batch.commands.text import LocalPath, format_rejected, print_facts

if TYPE_CHECKING:
    from rgpt_batch.config import JobConfig
    from rgpt_batch.job_run import JobSummary
    from rgpt_batch.store import Store

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _job_options(command: _Command) -> _Command:
    for option in reversed(
        (
            click.option(
                "--config", "-c", type=LocalPath(), help="YAML configuration. [default: none]"
            ),
            click.option(
                "--input",
                "-i",
                "inputs",
                multiple=True,
                required=True,
                help="Parquet file, folder or glob pattern, or a URI of one (s3://, gs://, "
                "abfs://, hf://); may be repeated.",
            ),
            click.option(
                "--output",
                required=True,
                type=click.Path(),
                help="Output folder, or a URI of one (s3://, gs://, abfs://).",
            ),
            click.option(
                "-o",
                "overrides",
                multiple=True,
                metavar="KEY=VALUE",
                help="Override an option of the configuration, e.g. -o model.dtype=float32; may "
                "be repeated.",
            ),
            click.option("--model", help="Folder or hub id; same as -o model.name=…"),
            click.option(
                "--protocol",
                type=click.Choice(["card", "eval", "eval-arguana"]),
                help="Same as -o protocol.name=…, with that protocol's own --max-length instead of "
                "the configuration's, if that is for another. [default: card]",
            ),
            click.option(
                "--max-length",
                type=click.IntRange(min=1),
                help="Tokens per prompt; longer documents are cut. "
                "[default: card 2048, eval 512, eval-arguana 544]",
            ),
            click.option(
                "--pass-through",
                metavar="COLUMN,…",
                help="Input columns to copy to the output. [default: none]",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    short_help="Score all pairs, or those that remain.",
    epilog="Example: rgpt-batch score -c configs/bloom-560m.yaml -i pairs/ --output scored/",
)
@_job_options
@click.option(
    "--executor",
    type=click.Choice(["ray", "local"]),
    help="Where engines run; same as -o executor.kind=…  [default: ray]",
)
@click.option(
    "--queries",
    help="Parquet with ids and texts of queries; --input then needs no query column. "
    "[default: the texts in --input]",
)
@click.option(
    "--documents",
    help="Parquet with ids and texts of documents; --input then needs no document column. "
    "[default: the texts in --input]",
)
@click.option(
    "--missing",
    type=click.Choice(["error", "reject"]),
    help="What to do about pairs whose query or document those tables lack: score nothing, or "
    "reject the pairs; same as -o input.missing=…  [default: error]",
)
@click.option(
    "--on-change",
    type=click.Choice(["refuse", "overwrite"]),
    default="refuse",
    show_default=True,
    help="What to do if the output folder holds the scores of another job.",
)
@click.option(
    "--reuse",
    type=click.Path(),
    metavar="OLD_OUTPUT",
    help="Output folder of an earlier job with the same settings; pairs whose texts it has scored "
    "get its scores. [default: score all]",
)
@click.option(
    "--parity",
    type=click.IntRange(2, 2000),
    metavar="N",
    help="First score N sampled pairs with the float32 transformers reference as well, and stop "
    "with exit code 2 if they disagree; same as -o parity.num_pairs=N  [default: no check]",
)
@click.option(
    "--max-rejected-fraction",
    type=click.FloatRange(min=0, max=1),
    help="Share of rejected rows above which the job exits with 3; same as "
    "-o output.max_rejected_fraction=…  [default: 0.1]",
)
@click.option("--quiet", is_flag=True, help="Show no progress.")
def score(
    config: str | None,
    inputs: tuple[str, ...],
    output: str,
    executor: str | None,
    queries: str | None,
    documents: str | None,
    missing: str | None,
    on_change: Any,
    reuse: str | None,
    parity: int | None,
    quiet: bool,
    **shortcuts: Any,
) -> int:
    """Score every pair of the input; resume where an earlier run stopped."""
    from rgpt_batch.job import run_job
    from rgpt_batch.joined_input import TextTables

    job_config = _load(config, executor=executor, parity=parity, missing=missing, **shortcuts)
    summary = run_job(
        job_config,
        inputs,
        output,
        on_change=on_change,
        tables=TextTables(queries=queries, documents=documents) if queries or documents else None,
        reuse=reuse,
        quiet=quiet,
    )
    _print_summary(summary)
    return summary.exit_code


@click.command(
    "retry-failed",
    short_help="Score the failed units of a job once more.",
    epilog="Example: rgpt-batch retry-failed scored/",
)
@click.argument("output", type=click.Path(exists=True, file_okay=False))
@click.option("--quiet", is_flag=True, help="Show no progress.")
def retry_failed(output: str, quiet: bool) -> int:
    """Score the failed units of an output folder with the input and options of its last run."""
    from rgpt_batch import job

    summary = job.retry_failed(output, quiet=quiet)
    _print_summary(summary)
    return summary.exit_code


@click.command(
    short_help="Show units, tokens, time and cost of a job.",
    epilog="Example: rgpt-batch plan -c configs/bloom-7b.yaml -i pairs/ --output scored/ "
    "--pairs-per-second 700 --workers 8 --price-per-hour 2.50",
)
@_job_options
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Rows to tokenise.",
)
@click.option(
    "--pairs-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Measured speed of one worker. [default: that of the output folder's last run]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Engines that will run at once.",
)
@click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0),
    help="Price of one worker's GPUs for an hour, any currency. [default: no cost is shown]",
)
def plan(
    config: str | None,
    inputs: tuple[str, ...],
    output: str,
    sample: int,
    pairs_per_second: float | None,
    workers: int,
    price_per_hour: float | None,
    **shortcuts: Any,
) -> int:
    """Show units, token counts, time and cost of a job without running it."""
    from rgpt_batch.estimate import sample_tokens
    from rgpt_batch.job import plan_job
    from rgpt_batch.progress import format_count, format_seconds
    from rgpt_batch.store import open_store

    job_config, manifest = plan_job(_load(config, **shortcuts), inputs, output)
    tokens = sample_tokens(job_config, manifest, sample)
    store = open_store(output)
    planned = store.load_manifest()
    is_ours = planned is not None and planned.fingerprint == manifest.fingerprint
    committed = store.committed() if is_ours else {}
    num_rows_left = sum(u.num_rows for u in manifest.units if u.unit_id not in committed)
    shards = {segment.path for unit in manifest.units for segment in unit.segments}
    print_facts(
        {
            "input": f"{format_count(len(shards), 'shard')}, "
            f"{format_count(manifest.num_rows, 'row')}",
            "units": f"{len(manifest.units):,}, of which {len(committed):,} are committed already; "
            f"largest {max(unit.num_rows for unit in manifest.units):,} rows",
            "prompts": f"{tokens.mean_prompt_tokens:.1f} tokens, {tokens.mean_query_tokens:.1f} of "
            f"them the query's (mean of {tokens.num_rows:,} sampled rows)",
            "truncated": f"{tokens.truncated_fraction:.2%} of the sampled rows, at "
            f"{job_config.protocol.max_tokens:,} tokens",
            "rejected": f"{tokens.rejected_fraction:.2%} of the sampled rows",
            "fingerprint": manifest.fingerprint,
        }
    )
    if planned is not None and not is_ours:
        click.echo(f"note         {output} holds another job; score would ask for --on-change")
    if pairs_per_second is None:
        pairs_per_second = _last_speed(store)
    if pairs_per_second is None:
        click.echo("time         unknown: give --pairs-per-second, or score a sample first")
        return 0
    worker_seconds = num_rows_left / pairs_per_second
    cost = "" if price_per_hour is None else f", cost {worker_seconds / 3600 * price_per_hour:,.2f}"
    work = f"{format_count(num_rows_left, 'row')} with {format_count(workers, 'worker')}"
    print_facts(
        {
            "time": f"{format_seconds(worker_seconds / workers)} for {work} at "
            f"{pairs_per_second:,.1f} pairs/s each; {worker_seconds / 3600:,.2f} worker-hours{cost}"
        }
    )
    return 0


def _load(
    config: str | None,
    overrides: tuple[str, ...] = (),
    *,
    model: str | None = None,
    protocol: str | None = None,
    max_length: int | None = None,
    pass_through: str | None = None,
    executor: str | None = None,
    parity: int | None = None,
    missing: str | None = None,
    max_rejected_fraction: float | None = None,
) -> JobConfig:
    """Read the configuration; the shortcuts win over -o, which wins over the file.

    A file's limit on prompts belongs to the file's protocol: it would undo eval.py's cut.
    """
    from rgpt_batch.config import load_config

    columns = None if pass_through is None else json.dumps(pass_through.split(","))
    shortcuts = {
        "model.name": None if model is None else json.dumps(model),
        "protocol.max_length": max_length,
        "output.pass_through": columns,
        "output.max_rejected_fraction": max_rejected_fraction,
        "executor.kind": executor,
        "parity.num_pairs": parity,
        "input.missing": missing,
    }
    given = tuple(f"{key}={value}" for key, value in shortcuts.items() if value is not None)
    loaded = load_config(config, (*overrides, *given))
    if protocol in (None, loaded.protocol.name):
        return loaded
    given = (f"protocol.name={protocol}", "protocol.max_length=null", *overrides, *given)
    return load_config(config, (*given, f"protocol.name={protocol}"))


def _print_summary(summary: JobSummary) -> None:
    from rgpt_batch.progress import format_seconds

    facts = {
        "output": summary.output,
        "rows": f"{summary.num_rows:,}, of which {summary.num_rows_scored:,} in this run and "
        f"{summary.num_rows_before:,} before",
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


def _last_speed(store: Store) -> float | None:
    """Return the pairs per second of one worker in the last run that scored something."""
    for run in reversed(store.read_runs()):
        num_workers = len({unit["worker"] for unit in run["units"]})
        if num_workers and (speed := run.get("summary", {}).get("pairs_per_second")):
            return float(speed) / num_workers
    return None
