"""The options of commands that time engines in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_Command = Callable[..., Any]
_POSITIVE = click.FloatRange(min=0, min_open=True)


def timing_options(*, budget: float) -> Callable[[_Command], _Command]:
    """Add --turns, --seconds and --budget.

    Args:
        budget: The default, seconds.
    """
    options = (
        click.option(
            "--turns",
            type=click.IntRange(min=1),
            default=3,
            show_default=True,
            help="Timed passes of each; every turn has other texts.",
        ),
        click.option(
            "--seconds",
            type=_POSITIVE,
            default=8,
            show_default=True,
            help="About how long a timed pass takes.",
        ),
        click.option(
            "--budget",
            type=_POSITIVE,
            default=budget,
            show_default=True,
            help="Seconds after which no turn begins.",
        ),
    )

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
