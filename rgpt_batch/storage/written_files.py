"""Files that a command writes on this machine: each appears in one step, complete, or not at all.

A link stays: what it points to is replaced. A device, a pipe or an open descriptor (/dev/stdout)
cannot be replaced: it gets the bytes once all of them are there.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rgpt_batch.config.arguments import Location, check_text
from rgpt_batch.errors import ConfigError

_DESCRIPTOR = re.compile(r"/dev/(stdin|stdout|stderr|fd/(\d+))|/proc/self/fd/(\d+)")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}


@contextmanager
def replacing(output: Location, temp_folder: str | None = None) -> Iterator[Path]:
    """Give a temporary file whose bytes take the output's place in the end.

    Args:
        output: The file to write; its folder is made where it is missing.
        temp_folder: Where bytes for a device or a pipe wait; default: the system's folder.

    Raises:
        ConfigError: Such a file cannot be written.
    """
    final = Path(output)
    try:
        check_output(final)
        if is_stream(final):
            with tempfile.TemporaryDirectory(prefix="rgpt-batch-", dir=temp_folder) as folder:
                staged = Path(folder, "output")
                yield staged
                _write_through(staged, final)
            return
        final = final.resolve()
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = final.with_name(f".rgpt-batch-{uuid.uuid4().hex}")
        try:
            yield staged
            staged.replace(final)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{output}: cannot be written: {error.strerror or error}. Check the disk and the "
            "permissions, or name another file."
        ) from error


def check_output(output: Location) -> None:
    """Say before the work what would keep the file from being written after it.

    Raises:
        ConfigError: Such a file cannot be written.
    """
    path = Path(output)
    kinds = {"a folder": path.is_dir, "a disk": path.is_block_device, "a socket": path.is_socket}
    for kind, is_kind in kinds.items():
        if is_kind():
            raise ConfigError(f"{output}: is {kind}, expected the name of a file to write.")
    if not is_stream(path):
        check_text(str(path.resolve()))
        folder = next(found for found in path.resolve().parents if found.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise ConfigError(
                f"{output}: cannot be written: {folder} is no folder, or does not allow it. Name "
                "another file."
            )


def is_stream(path: Path) -> bool:
    """Whether bytes can be written to a path, but not another file be put in its place."""
    if _DESCRIPTOR.fullmatch(str(path)):
        return True
    return path.is_char_device() or path.is_fifo()


def _write_through(staged: Path, stream: Path) -> None:
    found = _DESCRIPTOR.fullmatch(str(stream))
    if found:
        name, *numbers = found.groups()
        # A copy of the descriptor shares its position: what is printed later comes behind it.
        number = int(numbers[0] or numbers[1] or _STANDARD[name])
        target = os.fdopen(os.dup(number), "wb")
    else:
        target = stream.open("wb")
    with staged.open("rb") as source, target:
        shutil.copyfileobj(source, target)
