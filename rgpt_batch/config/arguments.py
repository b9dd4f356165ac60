"""What calls from Python may pass for a path, for paths, and for a choice.

The command line has checked its options already. Types are hints alone: a string where a list of
paths is expected would be taken letter by letter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from rgpt_batch.errors import ConfigError

Location = str | os.PathLike[str]
"""A local path, or where a function says so a URI."""

_Choice = TypeVar("_Choice")


def as_location(given: Any, name: str) -> str:
    """Return a path or URI as a string.

    Args:
        given: What the caller passed.
        name: What messages call it.

    Raises:
        ConfigError: It is neither.
    """
    location = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(location, str) or not location:
        found = repr(location) if location in ("", None) else type(given).__name__
        raise ConfigError(f"{name}: expected a path, found {found}.")
    check_text(location)
    return location


def check_text(location: str) -> None:
    """Raise ConfigError where a path is not UTF-8: records, footers and messages hold it as text.

    Python spells such bytes as halves of surrogate pairs.
    """
    try:
        location.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(
            f"{os.fsencode(location)!r}: the name is not UTF-8. Rename the file, or the folder "
            "that it is in."
        ) from None


def folded(path: str) -> str:
    """Return a path without `.` and `..`; as it is where it would then lead elsewhere.

    After a link to a folder, `..` is the folder above where the link leads, not above the link.
    """
    short, parts = os.path.normpath(path), path.split(os.sep)
    if os.pardir not in parts:
        return short
    # What lies behind the last `..` may not be there yet, or be a pattern.
    above = os.sep.join(parts[: len(parts) - parts[::-1].index(os.pardir)])
    try:
        return short if os.path.samefile(os.path.normpath(above), above) else path
    except OSError:
        return path


def as_locations(given: Any, name: str) -> list[str]:
    """Return one path or several as a list of strings; errors as as_location."""
    if isinstance(given, str | os.PathLike):
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise ConfigError(
            f"{name}: expected a path or a list of paths, found {type(given).__name__}."
        )
    return [as_location(location, name) for location in given]


def check_choice(given: _Choice, name: str, choices: Iterable[_Choice]) -> None:
    """Raise ConfigError unless a value is one of the choices."""
    known = tuple(choices)
    if given not in known:
        raise ConfigError(f"{name}: expected {' or '.join(map(repr, known))}, found {given!r}.")
