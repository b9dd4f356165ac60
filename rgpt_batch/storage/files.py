"""Files to read: on local disks, in object stores, on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from rgpt_batch.storage import hub as hub_files
from rgpt_batch.storage import objects
from rgpt_batch.storage.range_file import RangeFile
from rgpt_batch.storage.uris import HUB_SCHEME, is_uri, matches, split_uri

# Remote files are read in fewer and larger pieces.
_BUFFER_BYTES = 2**20
_REMOTE_BUFFER_BYTES = 8 * 2**20

# What pyarrow opens: a local path, or a file object.
Source = str | RangeFile


def find_remote_shards(argument: str) -> list[str]:
    """Expand a URI of a file, a folder or a glob pattern, as input.find does for paths.

    Returns:
        URIs by name; none where nothing matches.

    Raises:
        ConfigError: The URI cannot be used.
        OSError: The store cannot be used.
    """
    root, key = split_uri(argument)
    if root.startswith(f"{HUB_SCHEME}://"):
        return _select(*hub_files.list_repository(argument))
    if not argument.endswith("/") and key and not _has_magic(key):
        try:
            return [objects.head(f"{root}/{key}").uri]
        except FileNotFoundError:
            pass
    fixed = "/".join(_fixed_parts(key))
    return _select(f"{root}/{key}".rstrip("/"), objects.list_tree(f"{root}/{fixed}"))


def open_source(path: str) -> Source:
    """Return what pyarrow reads a file from.

    Raises:
        OSError: The file is not there or cannot be reached.
    """
    return open_version(path)[1]


def open_version(path: str) -> tuple[str, Source]:
    """Return a string that changes whenever the file does, and what to read this version from.

    Raises:
        OSError: The file is not there or cannot be reached.
    """
    if not is_uri(path):
        status = Path(path).stat()
        return f"{status.st_size}-{status.st_mtime_ns}", path
    if path.startswith(f"{HUB_SCHEME}://"):
        return hub_files.open_version(path)
    info, file = objects.open_object(path)
    return info.version, file


def local_path(location: str) -> str | None:
    """Return where other programs find a file or folder on this machine; None if it is not here."""
    return None if is_uri(location) else location


def buffer_bytes(path: str) -> int:
    """How many bytes of a column to read at once."""
    return _REMOTE_BUFFER_BYTES if is_uri(path) else _BUFFER_BYTES


def sha256(path: str) -> str:
    """Hash a file's content.

    Raises:
        OSError: The file cannot be read.
    """
    source = open_source(path)
    raw = io.FileIO(source) if isinstance(source, str) else source
    with io.BufferedReader(raw, buffer_bytes(path)) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
