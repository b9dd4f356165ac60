"""Options of a job, which `score` and `plan` share: one command becomes the other by one word."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rgpt_batch.commands.text import LocalPath
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from rgpt_batch.config.options import JobConfig
    from rgpt_batch.importing.joined import TextTables
    from rgpt_batch.ranking.top import TopPairs

_Command = TypeVar("_Command", bound=Callable[..., Any])


_CONFIG = click.option(
    "--config",
    "-c",
    type=LocalPath(),
    help="YAML configuration, or a name that `rgpt-batch models` lists. [default: none]",
)
_MODEL = (
    click.option(
        "-o",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override an option of the configuration, e.g. -o model.dtype=float32; may "
        "be repeated.",
    ),
    click.option("--model", help="Folder, hub id or URI; same as -o model.name=…"),
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
)


def model_options(command: _Command) -> _Command:
    """Add the options that say what scores, for commands without input and output."""
    for option in reversed((_CONFIG, *_MODEL)):
        command = option(command)
    return command


_INPUT = click.option(
    "--input",
    "-i",
    "inputs",
    multiple=True,
    required=True,
    help="Parquet file, folder or glob pattern, or a URI of one (s3://, gs://, "
    "abfs://, hf://); may be repeated.",
)
_TABLES = (
    click.option(
        "--queries",
        help="Parquet with ids and texts of queries; --input then needs no query column. "
        "[default: the texts in --input]",
    ),
    click.option(
        "--documents",
        help="Parquet with ids and texts of documents; --input then needs no document "
        "column. [default: the texts in --input]",
    ),
)


def sample_options(command: _Command) -> _Command:
    """Add the options that say what scores and what is scored, for commands without output."""
    for option in reversed((_CONFIG, _INPUT, *_TABLES, *_MODEL)):
        command = option(command)
    return command


def job_options(command: _Command) -> _Command:
    """Add the options that load_job_config takes, and those of input, output and run."""
    for option in reversed(
        (
            _CONFIG,
            _INPUT,
            click.option(
                "--output",
                required=True,
                type=click.Path(),
                help="Output folder, or a URI of one (s3://, gs://, abfs://).",
            ),
            *_MODEL,
            click.option(
                "--pass-through",
                metavar="COLUMN,…",
                help="Input columns to copy to the output. [default: none]",
            ),
            click.option(
                "--executor",
                type=click.Choice(["ray", "local"]),
                help="Where engines run; same as -o executor.kind=…  [default: ray]",
            ),
            *_TABLES,
            click.option(
                "--missing",
                type=click.Choice(["error", "reject"]),
                help="What to do about pairs whose query or document those tables lack: score "
                "nothing, or reject the pairs; same as -o input.missing=…  [default: error]",
            ),
            click.option(
                "--order",
                type=click.Choice(["input", "document", "auto"]),
                help="Which rows stand together in units and come out together: as in the input, "
                "or those of one document, which is then computed once; auto looks whether that "
                "pays; same as -o units.order=…  [default: input]",
            ),
            click.option(
                "--on-change",
                type=click.Choice(["refuse", "overwrite"]),
                default="refuse",
                show_default=True,
                help="What to do if the output folder holds the scores of another job.",
            ),
            click.option(
                "--reuse",
                type=click.Path(),
                metavar="OLD_OUTPUT",
                help="Output folder of an earlier job with the same settings; pairs whose texts it "
                "has scored get its scores. [default: score all]",
            ),
            click.option(
                "--only",
                metavar="RANKING",
                help="TREC run or Parquet, such as the output of a smaller model: score only the "
                "pairs that it has among the first --top-k of their query. [default: all pairs]",
            ),
            click.option(
                "--top-k", type=click.IntRange(min=1), help="Pairs per query, with --only."
            ),
            click.option(
                "--parity",
                type=click.IntRange(2, 2000),
                metavar="N",
                help="First score N sampled pairs with the float32 transformers reference as well, "
                "and stop with exit code 2 if they disagree; same as -o parity.num_pairs=N  "
                "[default: no check]",
            ),
            click.option(
                "--max-rejected-fraction",
                type=click.FloatRange(min=0, max=1),
                help="Share of rejected rows above which the job exits with 3; same as "
                "-o output.max_rejected_fraction=…  [default: 0.1]",
            ),
            click.option(
                "--join",
                is_flag=True,
                help="Share the work with every other process that runs this command with --join, "
                "on any number of machines.",
            ),
            click.option("--quiet", is_flag=True, help="Show no progress."),
            click.option(
                "--metrics-file",
                type=LocalPath(dir_okay=False),
                help="Keep metrics in this file *.prom, for Prometheus; same as "
                "-o watch.metrics_file=…  [default: none]",
            ),
            click.option(
                "--log-format",
                type=click.Choice(["text", "json"]),
                help="Of the lines on standard error; same as -o watch.log_format=…  "
                "[default: text]",
            ),
        )
    ):
        command = option(command)
    return command


def text_tables(queries: str | None, documents: str | None) -> TextTables | None:
    """Return where the texts are; None where the input holds them."""
    from rgpt_batch.importing.joined import TextTables

    for option, value in (("--queries", queries), ("--documents", documents)):
        # A variable of a shell script that is not set, for example.
        if value == "":
            raise ConfigError(f"{option} is empty. Name a Parquet file or folder, or leave it out.")
    if queries is None and documents is None:
        return None
    return TextTables(queries=queries, documents=documents)


def top_pairs(only: str | None, top_k: int | None) -> TopPairs | None:
    """Return which pairs alone are to be scored; None for all."""
    from rgpt_batch.ranking.top import TopPairs

    if only is None and top_k is None:
        return None
    if only is None or top_k is None:
        raise click.UsageError("--only and --top-k need each other.")
    return TopPairs(only, top_k)


def load_job_config(
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
    order: str | None = None,
    max_rejected_fraction: float | None = None,
    metrics_file: str | None = None,
    log_format: str | None = None,
) -> JobConfig:
    """Read the configuration; the shortcuts win over -o, which wins over the file.

    A file's limit on prompts belongs to the file's protocol: it would undo eval.py's cut.
    """
    from rgpt_batch.config.load import load_config

    columns = None if pass_through is None else json.dumps(pass_through.split(","))
    shortcuts = {
        "model.name": None if model is None else json.dumps(model),
        "protocol.max_length": max_length,
        "output.pass_through": columns,
        "output.max_rejected_fraction": max_rejected_fraction,
        "executor.kind": executor,
        "parity.num_pairs": parity,
        "input.missing": missing,
        "units.order": order,
        "watch.metrics_file": None if metrics_file is None else json.dumps(metrics_file),
        "watch.log_format": log_format,
    }
    given = tuple(f"{key}={value}" for key, value in shortcuts.items() if value is not None)
    loaded = load_config(config, (*overrides, *given))
    if protocol in (None, loaded.protocol.name):
        return loaded
    given = (f"protocol.name={protocol}", "protocol.max_length=null", *overrides, *given)
    return load_config(config, (*given, f"protocol.name={protocol}"))
