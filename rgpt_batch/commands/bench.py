"""The command that measures every way to the score on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rgpt_batch.commands.text import LocalPath
from rgpt_batch.commands.timing_options import timing_options
from rgpt_batch.storage.written_files import check_output, is_stream

if TYPE_CHECKING:
    from rgpt_batch.bench.shapes import ModelShape
    from rgpt_batch.bench.variants import Variant
    from rgpt_batch.config.options import JobConfig


@click.command(
    short_help="Measure every way to the score on this machine.",
    epilog="Example: rgpt-batch bench --shape bloom-560m --documents 80 --to bench.md",
)
@click.option("--config", "-c", type=click.Path(), help="YAML configuration. [default: none]")
@click.option("--model", help="Folder or hub id; same as -o model.name=…")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    help="Instead of a model, random weights in the size of bloom-560m, bloom-1b1, bloom-3b, "
    "bloom-7b, llama2-7b, baichuan2-7b, qwen-7b or smollm2-135m; nothing is downloaded. With "
    "`-tiny` at its end, two small layers of the same architecture. May be repeated.",
)
@click.option(
    "-o", "overrides", multiple=True, metavar="KEY=VALUE", help="Override an option; see score."
)
@click.option(
    "--documents",
    multiple=True,
    type=click.IntRange(min=1),
    default=(80, 400),
    show_default=True,
    help="Tokens per document; may be repeated.",
)
@click.option("--query-tokens", type=click.IntRange(min=1), default=8, show_default=True)
@click.option(
    "--queries-per-document",
    multiple=True,
    type=click.IntRange(min=1),
    default=(1, 4, 16),
    show_default=True,
    help="May be repeated.",
)
@click.option(
    "--variant",
    "names",
    multiple=True,
    help="What to measure; may be repeated. tuning adds settings that matter on GPUs. [default: "
    "card, eval, prompt-logprobs, token-ids, query-rows, pipeline]",
)
@timing_options(budget=3600)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache"),
    show_default=True,
    help="Where models of --shape are kept.",
)
@click.option(
    "--to",
    type=LocalPath(path_type=Path),
    help="Markdown file, which grows turn by turn, with JSON lines beside it; or a folder, in "
    "which date and hardware name them. [default: only the terminal]",
)
def bench(
    config: str | None,
    model: str | None,
    shapes: tuple[str, ...],
    overrides: tuple[str, ...],
    documents: tuple[int, ...],
    query_tokens: int,
    queries_per_document: tuple[int, ...],
    names: tuple[str, ...],
    turns: int,
    seconds: float,
    budget: float,
    cache: Path,
    to: Path | None,
) -> int:
    """Measure every way to the score on this machine, in turns, on the same random texts.

    Ratios are taken within turns. The pipeline's time runs from the first unit's first byte to the
    last commit; engines are measured on prompts that are tokenised. Shapes get equal shares of
    --budget.
    """
    from rgpt_batch.bench.hardware import hardware_name, matmul_flops_per_second
    from rgpt_batch.bench.models import random_model
    from rgpt_batch.bench.report import Report, dated_name
    from rgpt_batch.bench.suite import Suite
    from rgpt_batch.bench.workload import Workload
    from rgpt_batch.scoring.tokenizer import load_tokenizer

    if to is not None and not to.is_dir():
        check_output(to)
        if is_stream(to):
            raise click.UsageError("--to: a file that grows turn by turn is no device or pipe.")
    workloads = [
        Workload(document_tokens=length, query_tokens=query_tokens, queries_per_document=number)
        for length in documents
        for number in queries_per_document
    ]
    variants = _variants(names)
    if shapes and model is not None:
        raise click.UsageError("--model and --shape exclude each other.")
    models: list[tuple[ModelShape | None, JobConfig]] = [
        random_model(shape, cache, overrides) for shape in shapes
    ]
    if not shapes:
        models.append((None, _given_model(config, model, overrides)))
    for _, job_config in models:
        # A model that is not there is named before anything is measured.
        load_tokenizer(job_config.model)
    hardware = hardware_name()
    if to is not None and to.is_dir():
        to /= f"{dated_name(hardware)}.md"
    report = Report(to, hardware)
    end = time.monotonic() + budget
    is_measured = False
    for number, (model_shape, job_config) in enumerate(models):
        suite = Suite(
            config=job_config,
            shape=model_shape,
            variants=variants,
            workloads=workloads,
            num_turns=turns,
            seconds_per_pass=seconds,
            budget_seconds=max(0.0, end - time.monotonic()) / (len(models) - number),
        )
        report.begin(suite, matmul_flops_per_second(job_config.model.dtype))
        findings = suite.run(say=lambda line: click.echo(line, err=True), keep=report.update)
        report.update(findings)
        is_measured |= any(result.turns for result in findings.results)
    click.echo(report.text.rstrip())
    return 0 if is_measured else 1


def _given_model(config: str | None, model: str | None, overrides: tuple[str, ...]) -> JobConfig:
    """Return the configuration of a model that was not made here."""
    from rgpt_batch.bench.hardware import default_dtype
    from rgpt_batch.config.load import load_config

    given = [*overrides, f"model.name={model}"] if model is not None else list(overrides)
    loaded = load_config(config, tuple(given))
    if loaded.model.dtype == "auto":
        loaded = load_config(config, (*given, f"model.dtype={default_dtype()}"))
    return loaded


def _variants(names: tuple[str, ...]) -> list[Variant]:
    from rgpt_batch.bench.variants import STANDARD, TUNING, VARIANTS

    if not names:
        return list(STANDARD)
    chosen: list[Variant] = []
    for name in names:
        if name == "tuning":
            chosen += TUNING
        elif name in VARIANTS:
            chosen.append(VARIANTS[name])
        else:
            raise click.BadParameter(
                f"{name!r} is none of {', '.join(VARIANTS)}, tuning.", param_hint="--variant"
            )
    return list({variant.name: variant for variant in chosen}.values())
