"""The command that looks ahead: plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rgpt_batch.commands.job_options import job_options, load_job_config
from rgpt_batch.commands.text import price_option, print_facts

if TYPE_CHECKING:
    from rgpt_batch.output import Store


@click.command(
    short_help="Show units, tokens, time and cost of a job.",
    epilog="Example: rgpt-batch plan -c configs/bloom-7b.yaml -i pairs/ --output scored/ "
    "--pairs-per-second 700 --workers 8 --price-per-hour 2.50",
)
@job_options
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
@price_option
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
    from rgpt_batch.formatting import format_count, format_seconds
    from rgpt_batch.job.plan import plan_job
    from rgpt_batch.output import open_store
    from rgpt_batch.planning.estimate import sample_tokens
    from rgpt_batch.planning.same_job import is_same_job

    job_config, manifest = plan_job(load_job_config(config, **shortcuts), inputs, output)
    tokens = sample_tokens(job_config, manifest, sample)
    store = open_store(output)
    planned = store.load_manifest()
    is_ours = planned is not None and is_same_job(planned.identity, manifest.identity)
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


def _last_speed(store: Store) -> float | None:
    """Return the pairs per second of one worker in the last run that scored something."""
    from rgpt_batch.report.runs import read_records

    for run in reversed(read_records(store)[0]):
        num_workers = len({unit.worker for unit in run.units})
        if num_workers and run.summary.pairs_per_second:
            return run.summary.pairs_per_second / num_workers
    return None
