"""Options that name a job: its configuration, input and output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rgpt_batch.commands.text import LocalPath

if TYPE_CHECKING:
    from rgpt_batch.config.options import JobConfig

_Command = TypeVar("_Command", bound=Callable[..., Any])


def job_options(command: _Command) -> _Command:
    """Add the options that load_job_config takes, and --input and --output."""
    for option in reversed(
        (
            click.option(
                "--config",
                "-c",
                type=LocalPath(),
                help="YAML configuration, or a name that `rgpt-batch models` lists. "
                "[default: none]",
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
    max_rejected_fraction: float | None = None,
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
    }
    given = tuple(f"{key}={value}" for key, value in shortcuts.items() if value is not None)
    loaded = load_config(config, (*overrides, *given))
    if protocol in (None, loaded.protocol.name):
        return loaded
    given = (f"protocol.name={protocol}", "protocol.max_length=null", *overrides, *given)
    return load_config(config, (*given, f"protocol.name={protocol}"))
