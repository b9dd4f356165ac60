"""Which Parquet files a name stands for: a file, a folder, or a glob pattern, wherever it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rgpt_batch.errors import ConfigError, StorageError
from rgpt_batch.storage import hub, objects
from rgpt_batch.storage.selection import (
    Parts,
    Reason,
    Verdict,
    describe,
    fixed_parts,
    has_magic,
    judge,
)
from rgpt_batch.storage.table_formats import LOGS, refuse_tables
from rgpt_batch.storage.uris import HUB_SCHEME, full_paths, identities, identity, is_uri, split_uri

# Some tools mark folders by empty objects: `x/`, `x` beside `x/…`, or this.
_FOLDER_MARK = "_$folder$"


@dataclass(frozen=True, slots=True)
class Found:
    """What an argument stands for.

    Attributes:
        files: Full paths or URIs, by name, part for part.
        left_out: What lies there as well, by the reason why it is not read.
    """

    files: list[str]
    left_out: dict[Reason, list[str]] = field(default_factory=dict)


def find(argument: str) -> Found:
    """Expand a file, a folder or a glob pattern, a path or a URI; see selection for the rule.

    Raises:
        ConfigError: The argument names nothing, or what cannot be read file by file.
        OSError: A folder cannot be listed.
        StorageError: The store cannot be used.
    """
    return _find_remote(argument) if is_uri(argument) else _find_local(argument)


def top_folder(argument: str) -> tuple[str, Parts]:
    """Return the folder that is searched for an argument, and the pattern's parts below it."""
    if is_uri(argument):
        root, key = split_uri(argument)
        parts: Parts = [root, *key.split("/")] if key else [root]
        num_fixed = fixed_parts(parts)
        return "/".join(parts[:num_fixed]), parts[num_fixed:]
    path = Path(argument)
    num_fixed = len(path.parts) if path.exists() else fixed_parts(path.parts)
    return str(Path(*path.parts[:num_fixed])), path.parts[num_fixed:]


def would_find(argument: str, file: str) -> bool:
    """Whether a folder or pattern would stand for a file, if that was there."""
    if is_uri(argument) != is_uri(file):
        return False
    top, pattern = top_folder(argument)
    above, found = identity(top).rstrip("/") + "/", identity(file)
    below = found.removeprefix(above).split("/")
    return found.startswith(above) and judge(below, pattern)[0] is Verdict.MEANT


def _find_local(argument: str) -> Found:
    path = Path(argument)
    if path.is_file():
        return Found([str(path.absolute())])
    num_fixed = len(path.parts)
    if not path.is_dir():
        if not has_magic(argument):
            problem = "neither a file nor a folder" if path.exists() else "no such file or folder"
            raise ConfigError(f"{argument}: {problem}.")
        num_fixed = fixed_parts(path.parts)
    top, pattern = Path(*path.parts[:num_fixed]), path.parts[num_fixed:]
    again: list[str] = []
    found = _select(str(top), _walk(top, pattern, again) if top.is_dir() else (), pattern)
    if again:
        found.left_out[Reason.TWICE] = again
    for file in found.files:
        _check_file(file)
    if not found.files:
        what = "no file matches the pattern" if pattern else "the folder holds no *.parquet file"
        raise ConfigError(f"{argument}: {what}{_explain(found)}.")
    files = full_paths(found.files)
    parents = {Path(name) for name in {*map(os.path.dirname, (*files, *identities(files)))}}
    folders = {folder for parent in parents for folder in (parent, *parent.parents)}
    refuse_tables(sorted(map(str, folders)), _names_in)
    return Found(files, found.left_out)


def _walk(top: Path, pattern: Parts, again: list[str]) -> Iterator[Parts]:
    """Yield the files below a folder, and folders that are hidden, by their parts below it.

    Args:
        top: The folder. Links to folders are followed; without pattern each is searched once.
        pattern: Only folders that it leads to are searched.
        again: Gets what leads to folders that were searched already.
    """

    def refuse(error: OSError) -> None:
        # Left to itself, os.walk passes over such a folder, and its rows would be missing.
        raise error

    reals: dict[Path, str] = {}
    for parent, folders, files in os.walk(top, onerror=refuse, followlinks=True):
        real, path = os.path.realpath(parent), Path(parent)
        # A pattern may mean the files by one of two ways to them alone: only circles end there.
        seen = [reals[p] for p in path.parents if p in reals] if pattern else reals.values()
        if real in seen:
            folders.clear()
            again.append(parent)
            continue
        reals[path] = real
        above = path.relative_to(top).parts
        verdicts = {name: judge((*above, name), pattern, is_folder=True)[0] for name in folders}
        folders[:] = sorted(name for name in folders if verdicts[name] is Verdict.MEANT)
        yield from ((*above, name) for name in verdicts if verdicts[name] is Verdict.HIDDEN)
        yield from ((*above, name) for name in files)


def _check_file(file: str) -> None:
    if os.path.isfile(file):
        return
    try:
        Path(file).stat()
        problem = "neither a file nor a folder"
    except FileNotFoundError:
        problem = "a broken link"
    raise ConfigError(f"{file}: {problem}. Mend or delete it, or name the other files.")


def _names_in(folder: str) -> Collection[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return ()


def _find_remote(argument: str) -> Found:
    root, key = split_uri(argument)
    listed: Mapping[str, int | None]
    if root.startswith(f"{HUB_SCHEME}://"):
        root, key, uris = hub.list_repository(argument)
        listed, known = dict.fromkeys(uris), root
    else:
        if (uri := _named_object(argument, root, key)) is not None:
            return Found([uri])
        parts = key.split("/")
        known = f"{root}/{'/'.join(parts[: fixed_parts(parts)])}".rstrip("/")
        listed = objects.list_tree(known)
    folders = {folder for uri in listed for folder in _parents(uri, root)}
    uris = [uri for uri, size in listed.items() if size != 0 or not _marks_folder(uri, folders)]
    named = f"{root}/{key}".rstrip("/")
    if named in uris and not argument.endswith("/"):
        return Found([named])
    parts = key.split("/") if key else []
    num_fixed = len(parts) if named in folders else fixed_parts(parts)
    top = "/".join([root, *parts[:num_fixed]])
    below = (uri[len(top) + 1 :].split("/") for uri in uris if uri.startswith(f"{top}/"))
    found = _select(top, below, parts[num_fixed:])
    files = [uri for uri in found.files if listed[uri] != 0 or _exists(uri)]
    if not files:
        what = "no such object, folder with *.parquet objects, or match"
        raise ConfigError(f"{argument}: {what}{_explain(found)}.")
    parents = {parent for uri in files for parent in _parents(uri, root)}
    refuse_tables(sorted(parents), _lister(uris, known))
    return Found(files, found.left_out)


def _named_object(argument: str, root: str, key: str) -> str | None:
    """Return the URI of the object that an argument names, if it is one and no folder."""
    if argument.endswith("/") or not key or has_magic(key):
        return None
    try:
        info = objects.head(f"{root}/{key}")
    except FileNotFoundError:
        return None
    # An empty one may stand for the folder of its name.
    return info.uri if info.size or not objects.list_tree(info.uri) else None


def _exists(uri: str) -> bool:
    """Whether there is an object; a listing shows the marker `x/` of an empty folder as `x`."""
    try:
        objects.head(uri)
    except FileNotFoundError:
        return False
    return True


def _marks_folder(uri: str, folders: Collection[str]) -> bool:
    """Whether an empty object stands for a folder."""
    return uri.endswith(_FOLDER_MARK) or uri in folders


def _parents(uri: str, root: str) -> Iterator[str]:
    while uri != root:
        uri = uri.rpartition("/")[0]
        yield uri


def _lister(uris: Iterable[str], known: str) -> Callable[[str], Collection[str]]:
    """Return what lists the log of a table.

    Args:
        uris: All objects below a folder.
        known: The folder; others are asked for.
    """
    logs: dict[str, set[str]] = {}
    for uri in uris:
        parts = uri.split("/")
        for place, part in enumerate(parts[:-1]):
            if part in LOGS:
                logs.setdefault("/".join(parts[: place + 1]), set()).add(parts[place + 1])

    def list_names(folder: str) -> Collection[str]:
        if folder.startswith(f"{known}/"):
            return logs.get(folder, ())
        try:
            return objects.list_folder(folder)
        except StorageError as error:
            if error.is_transient:
                raise
            # Who may read a folder may be denied the ones above it.
            return ()

    return list_names


def _select(top: str, below: Iterable[Parts], pattern: Parts) -> Found:
    """Choose what a pattern means among the files below a folder."""
    files: list[str] = []
    left_out: dict[Reason, dict[str, None]] = {}
    for parts in sorted(map(tuple, below)):
        verdict, judged = judge(parts, pattern)
        name = "/".join([top.rstrip("/"), *judged])
        if verdict is Verdict.MEANT:
            files.append(name)
        elif verdict is not Verdict.NOT_MEANT:
            reason = Reason.HIDDEN if verdict is Verdict.HIDDEN else Reason.OTHER_NAME
            left_out.setdefault(reason, {})[name] = None
    return Found(files, {reason: list(names) for reason, names in left_out.items()})


def _explain(found: Found) -> str:
    return "".join(f"; {describe(reason, names)}" for reason, names in found.left_out.items())
