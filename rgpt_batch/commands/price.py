"""What `plan` says of a job's time and price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rgpt_batch.bench.price import GpuEstimate, estimate_on_gpu
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from rgpt_batch.job.preview import Preview
    from rgpt_batch.output import Store
    from rgpt_batch.planning.estimate import TokenSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What the rest of the job takes at a speed.

    Attributes:
        pairs_per_second: Of one worker.
        seconds: With all workers at work at once.
        cost: None where no price was given.
    """

    num_rows_left: int
    num_workers: int
    pairs_per_second: float
    seconds: float
    worker_hours: float
    cost: float | None

    @classmethod
    def of(
        cls, ahead: Preview, speed: float, num_workers: int, price_per_hour: float | None
    ) -> Effort:
        """Work out what remains of a job at the speed of one worker."""
        num_rows_left = sum(unit.num_rows for unit in ahead.remaining)
        worker_seconds = num_rows_left / speed
        hours = worker_seconds / 3600
        return cls(
            num_rows_left=num_rows_left,
            num_workers=num_workers,
            pairs_per_second=speed,
            seconds=worker_seconds / num_workers,
            worker_hours=hours,
            cost=None if price_per_hour is None else hours * price_per_hour,
        )


def estimate(ahead: Preview, tokens: TokenSample, gpu: str) -> GpuEstimate:
    """Estimate a worker's speed; documents are shared as far as the largest unit shares them."""
    from rgpt_batch.planning.prefix_caching import decide_prefix_caching, queries_per_document

    config, units = ahead.config, ahead.remaining or ahead.manifest.units
    shares = False
    if config.score.is_likelihood:
        shares = bool(
            decide_prefix_caching(config, ahead.manifest.columns, units).engine.prefix_caching
        )
    largest = max(units, key=lambda unit: unit.num_rows)
    shared_by = queries_per_document([largest], ahead.manifest.columns) if shares else 1
    return estimate_on_gpu(
        config.model,
        gpu,
        num_gpus=config.executor.gpus_per_worker or config.engine.num_ranks,
        num_tokens=tokens.mean_prompt_tokens,
        num_query_tokens=tokens.mean_query_tokens,
        queries_per_document=shared_by,
    )


def format_interval(fast: Effort, slow: Effort) -> str:
    """Say what a job takes between two speeds."""
    from rgpt_batch.formatting import format_count, format_seconds

    cost = ""
    if fast.cost is not None and slow.cost is not None:
        cost = f", cost {fast.cost:,.2f} to {slow.cost:,.2f}"
    return (
        f"{format_seconds(fast.seconds)} to {format_seconds(slow.seconds)} for "
        f"{format_count(fast.num_rows_left, 'row')} with "
        f"{format_count(fast.num_workers, 'worker')} at {slow.pairs_per_second:,.1f} to "
        f"{fast.pairs_per_second:,.1f} pairs/s each; {fast.worker_hours:,.2f} to "
        f"{slow.worker_hours:,.2f} worker-hours{cost}"
    )


def speed_like(output: str, tokens: TokenSample) -> float:
    """Return the pairs per second that a worker of another job makes of prompts like these."""
    from rgpt_batch.output import open_store
    from rgpt_batch.report.runs import read_records, run_facts

    records = read_records(open_store(output))[0]
    runs = [run_facts(number, record) for number, record in enumerate(records, 1)]
    scored = [run for run in runs if run.num_prompts and run.num_prompt_tokens]
    if not scored or not tokens.mean_prompt_tokens:
        raise ConfigError(
            f"{output}: no record of a run that scored anything. Name another output."
        )
    # Workers of a run were there for its whole time; the wait for units of other jobs was not.
    worker_seconds = sum(run.scoring_seconds * run.num_workers for run in scored)
    tokens_per_second = sum(run.num_prompt_tokens for run in scored) / worker_seconds
    # Rejected rows take no time, but are counted among the rows.
    share = max(1e-9, 1 - tokens.rejected_fraction)
    return tokens_per_second / tokens.mean_prompt_tokens / share


def format_time(effort: Effort | None) -> str:
    """Say what a job takes at a speed that is known, if one is."""
    from rgpt_batch.formatting import format_count, format_seconds

    if effort is None:
        return "unknown: give --pairs-per-second, --like or --gpu, or score a sample first"
    cost = "" if effort.cost is None else f", cost {effort.cost:,.2f}"
    work = (
        f"{format_count(effort.num_rows_left, 'row')} with "
        f"{format_count(effort.num_workers, 'worker')}"
    )
    return (
        f"{format_seconds(effort.seconds)} for {work} at {effort.pairs_per_second:,.1f} pairs/s "
        f"each; {effort.worker_hours:,.2f} worker-hours{cost}"
    )


def last_speed(store: Store) -> float | None:
    """Return the pairs per second of one worker in the last run that scored something."""
    from rgpt_batch.report.runs import read_records

    for run in reversed(read_records(store)[0]):
        num_workers = len({unit.worker for unit in run.units})
        if num_workers and run.summary.pairs_per_second:
            return run.summary.pairs_per_second / num_workers
    return None
