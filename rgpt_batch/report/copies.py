"""The committed files where DuckDB can read them several times: on this machine."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rgpt_batch.errors import ConfigError
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.storage.files import local_path, open_stream

_PIECE_BYTES = 8 * 2**20


@contextmanager
def local_files(
    files: Sequence[CommittedFile], temp_folder: str | None
) -> Iterator[list[CommittedFile]]:
    """Give the files as they are, or copies of those in an object store, which go away at the end.

    Raises:
        ConfigError: The copies do not fit the disk.
        ShardError: A file was replaced or deleted while it was read.
        StorageError: The object store cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="rgpt-batch-", dir=temp_folder) as folder:
        yield [file if local_path(file.path) else _copy(file, folder) for file in files]


def _copy(file: CommittedFile, folder: str) -> CommittedFile:
    target = Path(folder, file.path.rpartition("/")[2])
    with open_stream(file.path) as source, open(target, "wb") as stream:
        try:
            shutil.copyfileobj(source, stream, _PIECE_BYTES)
        except OSError as error:
            raise ConfigError(
                f"{folder}: a copy of {file.path} cannot be written: {error.strerror}. "
                "Set --temp-folder to where there is room for the whole output."
            ) from error
    return dataclasses.replace(file, path=str(target))
