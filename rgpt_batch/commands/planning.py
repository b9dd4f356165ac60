"""The command that looks ahead: plan."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from rgpt_batch.bench.price import GPUS
from rgpt_batch.commands.job_options import (
    job_options,
    load_job_config,
    text_tables,
    top_pairs,
)
from rgpt_batch.commands.price import (
    Effort,
    estimate,
    format_interval,
    format_time,
    last_speed,
    speed_like,
)
from rgpt_batch.commands.text import (
    OutputFolder,
    json_option,
    price_option,
    print_facts,
    print_json,
)

if TYPE_CHECKING:
    from rgpt_batch.job.preview import Preview
    from rgpt_batch.planning.documents import DocumentCounts
    from rgpt_batch.planning.estimate import TokenSample

# So many files of so few rows: opening them takes longer than reading.
_MANY_UNITS = 50
_FEW_ROWS = 256


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
@click.option(
    "--like",
    type=OutputFolder(exists=True, file_okay=False),
    metavar="OUTPUT",
    help="Output folder of a job with the same model on the same hardware; its measured speed "
    "counts, by the tokens of its prompts and of these. [default: none]",
)
@click.option(
    "--gpu",
    type=click.Choice(tuple(GPUS)),
    help="Where no speed is known: estimate it for this GPU, as a wide interval. "
    "[default: no estimate]",
)
@click.option(
    "--record",
    is_flag=True,
    help="Keep the estimate in the output folder; `report` puts it beside what it came to.",
)
@price_option
@json_option
def plan(
    config: str | None,
    inputs: tuple[str, ...],
    output: str,
    queries: str | None,
    documents: str | None,
    on_change: str,
    reuse: str | None,
    join: bool,
    only: str | None,
    top_k: int | None,
    quiet: bool,
    sample: int,
    pairs_per_second: float | None,
    workers: int,
    price_per_hour: float | None,
    like: str | None,
    gpu: str | None,
    record: bool,
    as_json: bool,
    **shortcuts: Any,
) -> int:
    """Show units, token counts, time and cost of a job without running it.

    Takes all options of `score`. Tables of texts are joined in the system's temporary folder.
    """
    from rgpt_batch.job.preview import preview
    from rgpt_batch.planning.estimate import sample_tokens

    with preview(
        load_job_config(config, **shortcuts),
        inputs,
        output,
        tables=text_tables(queries, documents),
        reuse=reuse,
        only=top_pairs(only, top_k),
        report=lambda message: None if quiet else click.echo(message, err=True),
    ) as ahead:
        tokens = sample_tokens(ahead.config, ahead.manifest, sample)
        counted = _Counted.of(ahead)
        speed = pairs_per_second or (
            last_speed(ahead.store) if like is None else speed_like(like, tokens)
        )
        effort = None if speed is None else Effort.of(ahead, speed, workers, price_per_hour)
        notes = list(_notes(ahead, on_change))
        guess = None
        if effort is None and gpu is not None and tokens.mean_prompt_tokens:
            guess = estimate(ahead, tokens, gpu)
        slowest = effort
        if guess is not None:
            slowest = Effort.of(ahead, guess.slow, workers, price_per_hour)
            effort = Effort.of(ahead, guess.fast, workers, price_per_hour)
            if not guess.fits:
                notes.append(
                    f"weights of {guess.weights_gb:,.1f} GB are too large for {gpu}. Raise "
                    "engine.tensor_parallel_size or engine.pipeline_parallel_size"
                )
        if record and effort is None:
            notes.append("nothing was recorded, since no speed is known")
        if record and effort is not None and slowest is not None:
            ahead.store.write_estimate(
                {
                    "fingerprint": ahead.manifest.fingerprint,
                    "low": asdict(effort),
                    "high": asdict(slowest),
                }
            )
        if as_json:
            known = effort if guess is None else None
            facts = _json(ahead, tokens, counted, known, notes)
            facts["gpu_estimate"] = None
            if guess is not None and effort is not None and slowest is not None:
                ends = {"low": asdict(effort), "high": asdict(slowest)}
                facts["gpu_estimate"] = {**asdict(guess), "basis": guess.basis, **ends}
            print_json(facts)
            return 0
        print_facts(_facts(ahead, tokens))
        if counted is not None:
            print_facts(_documents(ahead, tokens, counted))
        for note in notes:
            click.echo(f"note         {note}")
        if guess is None or effort is None or slowest is None:
            print_facts({"time": format_time(effort)})
        else:
            print_facts({"time": format_interval(effort, slowest), "basis": guess.basis})
    return 0


def _json(
    ahead: Preview,
    tokens: TokenSample,
    counted: _Counted | None,
    effort: Effort | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    units, earlier = ahead.manifest.units, ahead.earlier
    return {
        "output": ahead.store.location,
        "fingerprint": ahead.manifest.fingerprint,
        "num_shards": len({segment.path for unit in units for segment in unit.segments}),
        "num_rows": ahead.manifest.num_rows,
        "num_units": len(units),
        "num_units_committed": len(units) - len(ahead.remaining),
        "largest_unit_rows": max(unit.num_rows for unit in units),
        "max_tokens": ahead.config.protocol.max_tokens,
        "sample": asdict(tokens),
        "documents": None if counted is None else asdict(counted.counts),
        "num_rows_of_reuse": None if earlier is None else earlier.num_rows,
        "is_of_another_job": ahead.is_of_another_job,
        "effort": None if effort is None else asdict(effort),
        "notes": list(notes),
    }


def _facts(ahead: Preview, tokens: TokenSample) -> dict[str, str]:
    from rgpt_batch.formatting import format_count

    units = ahead.manifest.units
    shards = {segment.path for unit in units for segment in unit.segments}
    num_committed = len(units) - len(ahead.remaining)
    facts = {
        "input": f"{format_count(len(shards), 'shard')}, "
        f"{format_count(ahead.manifest.num_rows, 'row')}",
        "units": f"{len(units):,}, of which {num_committed:,} are committed already; "
        f"largest {max(unit.num_rows for unit in units):,} rows",
        "prompts": f"{tokens.mean_prompt_tokens:.1f} tokens, {tokens.mean_query_tokens:.1f} of "
        f"them the query's (mean of {tokens.num_rows:,} sampled rows)",
        "truncated": f"{tokens.truncated_fraction:.2%} of the sampled rows, at "
        f"{ahead.config.protocol.max_tokens:,} tokens",
        "rejected": f"{tokens.rejected_fraction:.2%} of the sampled rows",
    }
    if ahead.earlier is not None:
        facts["reuse"] = (
            f"{format_count(ahead.earlier.num_rows, 'row')} of {ahead.earlier.location}, as far as "
            "texts are the same; the time below counts them as if they were scored"
        )
    return {**facts, "fingerprint": ahead.manifest.fingerprint}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """How often documents repeat, and how long it took to count them."""

    counts: DocumentCounts
    seconds: float

    @classmethod
    def of(cls, ahead: Preview) -> _Counted | None:
        from rgpt_batch.job.order import count

        started = time.perf_counter()
        counts = count(ahead.config, ahead.source, lambda message: None)
        if counts is None or not counts.num_rows:
            return None
        return cls(counts=counts, seconds=time.perf_counter() - started)


def _documents(ahead: Preview, tokens: TokenSample, counted: _Counted) -> dict[str, str]:
    """Say how often documents repeat, and what clustering saves and takes."""
    from rgpt_batch.formatting import format_seconds

    counts = counted.counts
    share = f"{counts.share_of_tokens(tokens):.0%} of the tokens"
    counted_how = f"(by their ids, read in {format_seconds(counted.seconds)})"
    if ahead.config.units.order != "document":
        return {"documents": f"{counts}: --order document computes {share} {counted_how}"}
    # Footers count a text that repeats in a row group once.
    num_bytes = max(
        sum(unit.num_bytes for unit in ahead.manifest.units),
        ahead.manifest.num_rows * tokens.mean_text_bytes,
    )
    gib = num_bytes / 2**30
    return {
        "documents": f"{counts} of input order: clustered, {share} are computed {counted_how}",
        "disk": f"up to {2 * gib:,.1f} GiB where the output is while pairs are clustered, "
        f"{gib:,.1f} GiB after that; memory {ahead.config.input.join_memory_gib:g} GiB",
    }


def _notes(ahead: Preview, on_change: str) -> Iterator[str]:
    if ahead.is_of_another_job:
        what = "deletes that" if on_change == "overwrite" else "would ask for --on-change"
        yield f"{ahead.store.location} holds another job; score {what}"
    if ahead.earlier is not None and ahead.earlier.problem is not None:
        yield f"{ahead.earlier.location}: {ahead.earlier.problem}"
    num_units, max_rows = len(ahead.manifest.units), ahead.config.units.max_rows
    if num_units >= _MANY_UNITS and max_rows < _FEW_ROWS:
        yield (
            f"{num_units:,} files of at most {max_rows:,} rows are many and tiny. Raise "
            "units.max_rows; 30 to 120 seconds of work for each are about right"
        )
