"""Which Parquet files a command's arguments mean, on disk and in object stores."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from rgpt_batch.errors import ConfigError
from rgpt_batch.storage.files import find_remote_shards
from rgpt_batch.storage.uris import is_uri


def resolve_inputs(inputs: Sequence[str]) -> list[str]:
    """Expand files, folders and glob patterns, local or URIs, to absolute paths of shards.

    Folders are searched for *.parquet at any depth; names that start with `_` or `.` are left out,
    as Spark and Arrow do. Every file appears once, in the order of the arguments, then by name.

    Raises:
        ConfigError: An argument names nothing, or a folder cannot be listed.
    """
    paths: dict[Path | str, str] = {}
    for argument in inputs:
        try:
            if is_uri(argument):
                paths |= {uri: uri for uri in _find_remote_shards(argument)}
                continue
            for file in _find_shards(argument):
                paths.setdefault(file.resolve(), str(file.absolute()))
        except OSError as error:
            raise ConfigError(
                f"{argument}: cannot be listed: {error}. Check permissions."
            ) from error
    if not paths:
        raise ConfigError("no input: name at least one Parquet file, folder or pattern.")
    return list(paths.values())


def _find_shards(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _shards_below(path)
        if not found:
            raise ConfigError(f"{argument}: the folder holds no *.parquet file.")
    elif glob.has_magic(argument):
        matches = (Path(match) for match in sorted(glob.glob(argument, recursive=True)))
        found = [match for match in matches if match.is_file()]
        if not found:
            raise ConfigError(f"{argument}: no file matches the pattern.")
    else:
        raise ConfigError(f"{argument}: no such file or folder.")
    return found


def _find_remote_shards(argument: str) -> list[str]:
    found = find_remote_shards(argument)
    if not found:
        raise ConfigError(f"{argument}: no such object, folder with *.parquet objects, or match.")
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
