"""Files to read: on local disks, in object stores, on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import io
import os

from rgpt_batch.errors import ShardError
from rgpt_batch.storage import hub as hub_files
from rgpt_batch.storage import objects
from rgpt_batch.storage.range_file import RangeFile
from rgpt_batch.storage.uris import HUB_SCHEME, is_uri

# Remote files are read in fewer and larger pieces.
_BUFFER_BYTES = 2**20
_REMOTE_BUFFER_BYTES = 8 * 2**20

# What pyarrow opens: a local path, or a file object.
Source = str | RangeFile


def open_source(path: str) -> Source:
    """Return what pyarrow reads a file from.

    Raises:
        OSError: The file is not there or cannot be reached.
    """
    return open_version(path)[1]


def open_at(path: str, version: str) -> Source:
    """Open a file to read at the version that was planned; see check_unchanged for the end.

    Raises:
        ShardError: The file has another version now.
        OSError: The file is not there or cannot be reached.
    """
    found, source = open_version(path)
    _check_version(path, found, version)
    return source


def check_unchanged(path: str, version: str) -> None:
    """Look, after a file was read, whether it was overwritten in place meanwhile.

    A file in a store needs no look: each request for its bytes names the version.

    Raises:
        ShardError: The file has another version now.
        OSError: The file is not there any more.
    """
    if local_path(path):
        _check_version(path, open_version(path)[0], version)


def open_version(path: str) -> tuple[str, Source]:
    """Return a string that changes whenever the file does, and what to read this version from.

    Raises:
        OSError: The file is not there or cannot be reached.
    """
    if not is_uri(path):
        status = os.stat(path)
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


def open_stream(path: str) -> io.RawIOBase:
    """Open a file as a Python file; errors as open_source."""
    source = open_source(path)
    return io.FileIO(source) if isinstance(source, str) else source


def sha256(path: str) -> str:
    """Hash a file's content.

    Raises:
        OSError: The file cannot be read.
    """
    with io.BufferedReader(open_stream(path), buffer_bytes(path)) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_version(path: str, found: str, version: str) -> None:
    if found != version:
        raise ShardError(
            f"{path}: the file changed after the job was planned. Run the job again with "
            "--on-change overwrite, or bring the old file back."
        )
