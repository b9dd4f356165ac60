"""How commands read locations and prices, and write numbers and lists of facts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from typing_extensions import override

from rgpt_batch.errors import ConfigError
from rgpt_batch.storage.uris import check_location, is_uri, redacted

_Command = TypeVar("_Command", bound=Callable[..., Any])


class OutputFolder(click.Path):
    """The output folder of a job that was run: a local folder that exists, or a URI."""

    @override
    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and is_uri(value):
            check_location(value)
            return value
        return super().convert(value, param, ctx)


price_option = click.option(
    "--price-per-hour",
    type=click.FloatRange(min=0),
    help="Price of one worker's GPUs for an hour, any currency. [default: no cost is shown]",
)


class LocalPath(click.Path):
    """A path on this machine: what is not a job's input or output is not kept in object stores."""

    @override
    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and is_uri(value):
            raise ConfigError(f"{redacted(value)}: a URI, expected a local path. Copy it over.")
        return super().convert(value, param, ctx)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; docs/json.md has its keys."
)


def print_json(facts: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own. JSON has no NaN and no infinity: null."""
    click.echo(json.dumps(_finite(facts), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def database_options(command: _Command) -> _Command:
    """Add the options of commands that sort and join in DuckDB."""
    command = click.option(
        "--temp-folder",
        type=LocalPath(exists=True, file_okay=False),
        help="Where to put what does not fit into memory. [default: the system's]",
    )(command)
    return click.option(
        "--memory-gib",
        type=click.FloatRange(min=0.25),
        default=4.0,
        show_default=True,
        help="Memory for sorting and joining, GiB.",
    )(command)


def warn_of_invented(paths: Iterable[str | None]) -> None:
    """Say on stderr which scores come from the fake engine: the numbers look like any others."""
    from rgpt_batch.output.scored_files import is_invented

    for path in filter(None, paths):
        if is_invented(path):
            click.echo(
                f"warning: {redacted(path)}: the fake engine wrote these scores; they are "
                "invented and mean nothing.",
                err=True,
            )


def print_facts(facts: dict[str, str]) -> None:
    """Print one aligned line for each fact."""
    for name, fact in facts.items():
        click.echo(f"{name:<12} {fact}")


def format_rejected(num_rejected: dict[str, int]) -> str:
    """Format counts by reason as `34 (EMPTY_QUERY 4, NULL_QUERY 30)`."""
    if not num_rejected:
        return "0"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(num_rejected.items()))
    return f"{sum(num_rejected.values()):,} ({reasons})"
