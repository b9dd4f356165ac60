"""Which of the files below a folder an argument means: one rule for disks and object stores.

A folder stands for the files below it that are called like Parquet. A pattern stands for what it
matches: files, whatever they are called, and folders, as if they were named. Hidden names count
only where the argument spells their beginning. docs/inputs.md has the rule as a table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum
from fnmatch import fnmatchcase

SUFFIXES = (".parquet", ".parq", ".pq")

# The parts of a path or key below the folder that is searched.
Parts = Sequence[str]


class Reason(Enum):
    """Why something is left out; the value is how messages put it."""

    HIDDEN = "the name begins with '.' or '_'"
    OTHER_NAME = f"the name does not end in {', '.join(SUFFIXES)}"
    TWICE = "it is the same as one before"


class Verdict(Enum):
    """What a pattern says of a file or folder."""

    MEANT = "meant"
    HIDDEN = "hidden"
    OTHER_NAME = "other name"
    NOT_MEANT = "not meant"


def describe(reason: Reason, names: Sequence[str]) -> str:
    """Say in a line how many files and folders are left out, and why."""
    # A name that is not UTF-8 could be neither printed nor logged.
    shown = os.fsencode(names[0]).decode("utf-8", "backslashreplace")
    return f"left out because {reason.value}: {len(names):,}, such as {shown}"


def has_magic(text: str) -> bool:
    """Whether a text holds a wildcard."""
    return any(character in text for character in "*?[")


def fixed_parts(parts: Parts) -> int:
    """How many parts come before a pattern's first wildcard."""
    return next((i for i, part in enumerate(parts) if has_magic(part)), len(parts))


def is_parquet_name(name: str) -> bool:
    """Whether a file is called like Parquet."""
    return name.lower().endswith(SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a name is a private one, as Spark and Hive see it; `_key=value` is a partition."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def judge(parts: Parts, pattern: Parts, *, is_folder: bool = False) -> tuple[Verdict, Parts]:
    """Say whether a pattern means a file.

    Args:
        parts: Of the file, below the folder that is searched.
        pattern: Its parts below that folder; none where the folder itself was named.
        is_folder: It is a folder; meant where there may be something in it that is.

    Returns:
        The verdict, and what it is on: of a file in a hidden folder, the folder.
    """
    is_inside = _matches((), pattern)
    for end in range(1, len(parts) + 1):
        found = parts[:end]
        if is_inside:
            if is_hidden(found[-1]):
                return Verdict.HIDDEN, found
        elif _leads(found, pattern):
            is_inside = _matches(found, pattern)
            if is_inside and end == len(parts):
                return Verdict.MEANT, parts
        else:
            is_lax = _leads(found, pattern, lax=True)
            return (Verdict.HIDDEN if is_lax else Verdict.NOT_MEANT), found
    if is_folder:
        return Verdict.MEANT, parts
    if not is_inside:
        return Verdict.NOT_MEANT, parts
    return (Verdict.MEANT if is_parquet_name(parts[-1]) else Verdict.OTHER_NAME), parts


def _matches(parts: Parts, pattern: Parts) -> bool:
    """Match all parts with all of a pattern, as the shell does; `**` is any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and _matches(parts, pattern[1:]):
        return True
    if not parts or not _fits(parts[0], pattern[0], lax=False):
        return False
    return _matches(parts[1:], pattern if pattern[0] == "**" else pattern[1:])


def _leads(parts: Parts, pattern: Parts, *, lax: bool = False) -> bool:
    """Whether the pattern can match these parts, or what lies below them.

    Args:
        parts: Of a file or folder.
        pattern: What to match them with.
        lax: Let wildcards stand for the beginning of hidden names as well.
    """
    if not parts:
        return True
    if not pattern:
        return False
    if pattern[0] == "**" and _leads(parts, pattern[1:], lax=lax):
        return True
    if not _fits(parts[0], pattern[0], lax=lax):
        return False
    return _leads(parts[1:], pattern if pattern[0] == "**" else pattern[1:], lax=lax)


def _fits(name: str, pattern: str, *, lax: bool) -> bool:
    if not lax and is_hidden(name) and pattern[:1] != name[:1]:
        return False
    return fnmatchcase(name, pattern)
