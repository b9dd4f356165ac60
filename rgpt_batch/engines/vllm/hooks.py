"""Looks whether parts of vLLM that are not public are there, and are what we take them for.

Version numbers are not asked. A name alone does not tell: in another version a method of this name
may take other arguments, and a field may mean something else.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Method:
    """A method, and the names of its first parameters after self; others may follow."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """A field whose annotation allows a value of this class."""

    name: str
    type: type


@dataclass(frozen=True, slots=True)
class OfInstance:
    """An attribute that only instances have: `__init__` sets it."""

    name: str


Member = str | Method | Field | OfInstance


@dataclass(frozen=True, slots=True)
class Hook:
    """A class or function of vLLM, and what we use of it.

    Attributes:
        members: Methods, attributes or fields of the class.
        keywords: All arguments that we call it with.
    """

    module: str
    name: str
    members: tuple[Member, ...] = ()
    keywords: tuple[str, ...] = ()


def missing(hooks: Sequence[Hook]) -> list[str]:
    """Name what this vLLM lacks, as dotted paths."""
    names = []
    for hook in hooks:
        path = f"{hook.module}.{hook.name}"
        try:
            owner = vars(importlib.import_module(hook.module)).get(hook.name)
        except ImportError:
            owner = None
        if owner is None:
            names.append(path)
            continue
        if hook.keywords and not _can_be_made_with(owner, hook.keywords):
            names.append(f"{path}({', '.join(hook.keywords)})")
        names += [f"{path}.{describe(each)}" for each in hook.members if not _has(owner, each)]
    return names


def describe(member: Member) -> str:
    """Name a member as messages do."""
    match member:
        case Method():
            return f"{member.name}({', '.join(member.parameters)})"
        case Field():
            return f"{member.name} of type {member.type.__name__}"
        case OfInstance():
            return member.name
    return member


def _has(owner: Any, member: Member) -> bool:
    match member:
        case Method():
            method = getattr(owner, member.name, None)
            if not callable(method):
                return False
            behind_self = tuple(inspect.signature(method).parameters)[1:]
            return behind_self[: len(member.parameters)] == member.parameters
        case Field():
            # Turns annotations that are strings into types, and drops what Annotated adds.
            annotation = typing.get_type_hints(owner).get(member.name)
            return member.type in (annotation, *typing.get_args(annotation))
        case OfInstance():
            return member.name in inspect.unwrap(owner.__init__).__code__.co_names
    # A dataclass's field without a default is an annotation, and no attribute.
    return member in {*dir(owner), *inspect.get_annotations(owner)}


def _can_be_made_with(owner: Any, keywords: tuple[str, ...]) -> bool:
    try:
        inspect.signature(owner).bind(**dict.fromkeys(keywords))
    except TypeError:
        return False
    return True
