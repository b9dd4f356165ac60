"""The command that finds faster engine settings on a sample of the user's own input."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rgpt_batch.commands.engine_output import engine_output_kept
from rgpt_batch.commands.job_options import load_job_config, sample_options, text_tables
from rgpt_batch.commands.text import LocalPath, json_option, print_json
from rgpt_batch.commands.timing_options import timing_options

if TYPE_CHECKING:
    from rgpt_batch.bench.samples import SampledTexts
    from rgpt_batch.bench.tuning import Tuning
    from rgpt_batch.config.options import JobConfig
    from rgpt_batch.importing.joined import TextTables
    from rgpt_batch.job.terminal import Terminal


@click.command(
    short_help="Find faster engine settings on a sample of your own input.",
    epilog="Example: rgpt-batch tune -c configs/bloom-7b.yaml -i pairs/ --to tuned.yaml",
)
@sample_options
@click.option(
    "--to",
    type=LocalPath(path_type=Path, dir_okay=False),
    default=Path("tuned.yaml"),
    show_default=True,
    help="Configuration to write, with what was measured as comments; renewed after each trial.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Rows of the input to measure with.",
)
@timing_options(budget=1800)
@click.option(
    "--max-score-change",
    type=click.FloatRange(min=0),
    help="Take another model.dtype if no score of the sample changes by more, in the score's unit. "
    "[default: other dtypes are measured, and not taken]",
)
@json_option
def tune(
    config: str | None,
    inputs: tuple[str, ...],
    queries: str | None,
    documents: str | None,
    to: Path,
    budget: float,
    sample: int,
    turns: int,
    seconds: float,
    max_score_change: float | None,
    as_json: bool,
    **shortcuts: Any,
) -> int:
    """Try engine settings on a sample of the input, and write a configuration with the fastest.

    Two engines at a time score the same rows in turns: the best settings so far, and others. What
    is faster in all turns is taken. All but model.dtype leave scores as they are, up to the
    rounding that batches differ in.
    """
    from rgpt_batch.bench.hardware import hardware_name
    from rgpt_batch.bench.tuned_file import facts, table, write_tuned
    from rgpt_batch.job.signals import signals_raise
    from rgpt_batch.storage.written_files import check_output, is_stream

    end = time.monotonic() + budget
    check_output(to)
    if is_stream(to):
        raise click.UsageError(
            "--to: a file that is renewed after each trial is no device or pipe."
        )
    job_config = load_job_config(config, **shortcuts)
    tables = text_tables(queries, documents)
    with signals_raise(), engine_output_kept("tune") as terminal:
        decided, texts = _sample(job_config, inputs, tables, sample, turns)
        tuning = _begin(decided, max_score_change)
        described = f"{len(texts.pairs):,} pairs of {', '.join(inputs)}; {turns} turns a trial."

        def keep() -> None:
            write_tuned(to, job_config, tuning, hardware_name(), described)

        try:
            _search(tuning, decided, texts, turns, seconds, end, terminal, keep)
        except KeyboardInterrupt:
            if tuning.trials:
                terminal.say(f"stopped; {to} has what was found before")
            raise
    was_measured = any(trial.ratios for trial in tuning.trials)
    if as_json:
        print_json({"to": str(to), "num_pairs": len(texts.pairs), **facts(tuning)})
    else:
        click.echo("\n".join(table(tuning)))
        changes = tuning.best.changes_from(tuning.start)
        shown = ", ".join(f"{name}={value}" for name, value in changes.items())
        if not tuning.is_over:
            click.echo("note: the time was over before all settings were tried; raise --budget")
        click.echo(f"{to}: {shown or 'nothing was faster; the settings are as they were'}")
    return 0 if was_measured else 1


def _sample(
    config: JobConfig,
    inputs: tuple[str, ...],
    tables: TextTables | None,
    num_rows: int,
    num_turns: int,
) -> tuple[JobConfig, SampledTexts]:
    """Read a sample, and decide by the input what the configuration leaves open."""
    from rgpt_batch.bench.samples import sample_texts
    from rgpt_batch.job.preview import preview
    from rgpt_batch.planning.prefix_caching import decide_prefix_caching

    with (
        tempfile.TemporaryDirectory(prefix="rgpt-batch-") as nowhere,
        preview(config, inputs, nowhere, tables=tables) as ahead,
    ):
        texts = sample_texts(ahead.manifest, num_rows, num_turns)
        manifest = ahead.manifest
        return decide_prefix_caching(ahead.config, manifest.columns, manifest.units), texts


def _begin(config: JobConfig, max_score_change: float | None) -> Tuning:
    from rgpt_batch.bench.hardware import has_gpu
    from rgpt_batch.bench.knobs import current_knobs
    from rgpt_batch.bench.tuning import Tuning
    from rgpt_batch.engines.vllm.arguments import STEP_TOKENS_ON_CPU, STEP_TOKENS_ON_GPU

    on_gpu = has_gpu()
    num_step_tokens = STEP_TOKENS_ON_GPU if on_gpu else STEP_TOKENS_ON_CPU
    start = current_knobs(config, has_gpu=on_gpu, num_step_tokens=num_step_tokens)
    return Tuning.of(start, max_score_change)


def _search(
    tuning: Tuning,
    config: JobConfig,
    texts: SampledTexts,
    num_turns: int,
    seconds: float,
    end: float,
    terminal: Terminal,
    keep: Callable[[], None],
) -> None:
    from rgpt_batch.bench.hardware import default_dtype, has_gpu
    from rgpt_batch.bench.knobs import directions, other_dtypes
    from rgpt_batch.bench.trials import Trials

    trials = Trials(
        config=config,
        texts=texts,
        num_turns=num_turns,
        seconds_per_pass=seconds,
        end=end,
        say=terminal.say,
    )
    computes_16_bit = has_gpu() or default_dtype() == "bfloat16"
    tuning.search(
        directions(tuning.start, config, has_gpu=has_gpu()),
        lambda best: other_dtypes(best, computes_16_bit=computes_16_bit),
        trials.measure,
        trials.has_time,
        keep,
    )
