"""Which Parquet files a name stands for: a file, a folder, or a glob pattern, wherever it is."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from rgpt_batch.errors import ConfigError
from rgpt_batch.storage import hub, objects
from rgpt_batch.storage.uris import HUB_SCHEME, is_uri, matches, split_uri


def find(argument: str) -> list[str]:
    """Expand a file, a folder or a glob pattern, a path or a URI, to full paths or URIs by name.

    Folders are searched for *.parquet at any depth; names that start with `_` or `.` are left out,
    as Spark and Arrow do.

    Raises:
        ConfigError: The argument names nothing.
        OSError: A folder cannot be listed.
        StorageError: The store cannot be used.
    """
    if not is_uri(argument):
        return [str(file.absolute()) for file in _find_local(argument)]
    found = find_remote(argument)
    if not found:
        raise ConfigError(f"{argument}: no such object, folder with *.parquet objects, or match.")
    return found


def _find_local(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _shards_below(path)
        if not found:
            raise ConfigError(f"{argument}: the folder holds no *.parquet file.")
    elif glob.has_magic(argument):
        matched = (Path(match) for match in sorted(glob.glob(argument, recursive=True)))
        found = [match for match in matched if match.is_file()]
        if not found:
            raise ConfigError(f"{argument}: no file matches the pattern.")
    else:
        raise ConfigError(f"{argument}: no such file or folder.")
    return found


def _shards_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        # Left to itself, os.walk passes over such a folder, and its rows would be missing.
        raise error

    shards: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if name[0] not in "_."]
        shards += [
            Path(parent, name)
            for name in files
            if name.endswith(".parquet") and name[0] not in "_."
        ]
    return sorted(shards)


def find_remote(argument: str) -> list[str]:
    """Expand a URI as find does.

    Returns:
        URIs by name; none where nothing matches.

    Raises:
        ConfigError: The URI cannot be used.
        OSError: The store cannot be used.
    """
    root, key = split_uri(argument)
    if root.startswith(f"{HUB_SCHEME}://"):
        return _select(*hub.list_repository(argument))
    if not argument.endswith("/") and key and not _has_magic(key):
        try:
            return [objects.head(f"{root}/{key}").uri]
        except FileNotFoundError:
            pass
    fixed = "/".join(_fixed_parts(key))
    return _select(f"{root}/{key}".rstrip("/"), objects.list_tree(f"{root}/{fixed}"))


def _has_magic(text: str) -> bool:
    return any(character in text for character in "*?[")


def _fixed_parts(key: str) -> list[str]:
    """Return the folders that come before a pattern's first wildcard."""
    parts = key.split("/")
    first = next((i for i, part in enumerate(parts) if _has_magic(part)), len(parts))
    return parts[:first]


def _select(argument: str, uris: list[str]) -> list[str]:
    """Choose what a file name, a folder or a pattern means among the objects that are there."""
    if argument in uris:
        return [argument]
    if _has_magic(argument):
        return [uri for uri in uris if matches(uri.split("/"), argument.split("/"))]
    return [uri for uri in uris if _is_shard(uri.removeprefix(argument).strip("/").split("/"))]


def _is_shard(parts: list[str]) -> bool:
    return parts[-1].endswith(".parquet") and all(part[:1] not in ("_", ".") for part in parts)
