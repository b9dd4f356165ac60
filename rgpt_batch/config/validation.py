"""What is wrong with settings, in words."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rgpt_batch.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)


def validated(model: type[_Model], settings: Any, where: str) -> _Model:
    """Check settings.

    Args:
        model: Which options there are.
        settings: Value by name, sections nested.
        where: What an error calls them.

    Raises:
        ConfigError: A name is unknown, or a value is wrong.
    """
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(model, problem)}" for problem in error.errors())
        raise ConfigError(f"{where} is not valid:\n{problems}") from error


def _describe(model: Any, problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = ", ".join(_options(model, problem["loc"][:-1]))
        return f"{where}: unknown option. Known: {known}."
    if problem["type"] == "missing":
        return f"{where}: missing. Set it in the file or with -o {where}=…"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else str(message)


def _options(model: Any, section: Sequence[str | int]) -> list[str]:
    """List the options of a section, given the path to it; a number is a place in a list."""
    for part in section:
        if isinstance(part, int):
            model = typing.get_args(model)[0]
        else:
            model = model.model_fields[part].annotation
    return list(model.model_fields)
