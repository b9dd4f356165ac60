"""An output folder on a local disk or a POSIX network file system.

A unit is written under a name of its own in the staging folder, flushed to disk, and then linked to
its final name. `os.link` fails where that name exists, so the first of two writers wins, and no
reader ever sees a half-written file. Why not rename: it would replace what another attempt, perhaps
one thought dead, has already published.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rgpt_batch.errors import CommitError, ManifestMismatch
from rgpt_batch.manifest import Manifest
from rgpt_batch.store.base import PART, CommittedFile, Store


class LocalStore(Store):
    """See Store."""

    def __init__(self, output: str) -> None:
        self.location = str(Path(output).absolute())
        self._folder = Path(self.location)
        self._staging = self._folder / "_rgpt" / "staging"

    def load_manifest(self) -> Manifest | None:
        """See Store."""
        if self._folder.exists() and not self._folder.is_dir():
            raise ManifestMismatch(f"{self.location}: the output is a file, expected a folder.")
        self._refuse_links()
        return super().load_manifest()

    def _refuse_links(self) -> None:
        """Refuse folders of ours that lead elsewhere: what is written there may be another's."""
        for name in ("_rgpt", "_rgpt/staging", "_rgpt/runs", "_rgpt/failed"):
            folder = self._folder / name
            if folder.is_symlink():
                raise ManifestMismatch(
                    f"{folder}: a symbolic link, expected a folder. Remove it, or use another "
                    "output folder."
                )

    def committed(self) -> dict[str, CommittedFile]:
        """See Store."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._folder) as entries:
            for entry in entries:
                if PART.fullmatch(entry.name) and entry.is_symlink():
                    raise ManifestMismatch(
                        f"{entry.path}: a symbolic link, expected a file. Delete it, and run the "
                        "same command again."
                    )
        return super().committed()

    def write_success(self, summary: dict[str, Any]) -> None:
        """See Store."""
        super().write_success(summary)
        shutil.rmtree(self._staging, ignore_errors=True)

    def _list(self, folder: str) -> dict[str, int]:
        sizes = {}
        # What is deleted in the meantime is not there.
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self._folder / folder) as entries,
        ):
            for entry in entries:
                with suppress(FileNotFoundError):
                    sizes[entry.name] = entry.stat().st_size
        return sizes

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def _create(self, name: str, content: bytes | memoryview, attempt: str) -> bool:
        with self._staged(name, content, attempt) as staged:
            return _link(staged, self._folder / name)

    def _replace(self, name: str, content: bytes) -> None:
        with self._staged(name, content, uuid.uuid4().hex) as staged:
            staged.replace(self._folder / name)

    def _delete(self, names: Sequence[str]) -> None:
        with _commit_errors(self._folder):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

    def _delete_folder(self, folder: str) -> None:
        shutil.rmtree(self._folder / folder, ignore_errors=True)

    @contextmanager
    def _staged(self, name: str, content: bytes | memoryview, attempt: str) -> Iterator[Path]:
        """Write durably under a name of its own, before the file gets its final name."""
        final = self._folder / name
        staged = self._staging / f"{final.name}.{attempt}"
        with _commit_errors(final):
            self._staging.mkdir(parents=True, exist_ok=True)
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                with staged.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                yield staged
            finally:
                staged.unlink(missing_ok=True)


@contextmanager
def _commit_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommitError(
            f"{path}: cannot be written: {error}. Check space and permissions; running the same "
            "command again continues."
        ) from error


def _link(staged: Path, final: Path) -> bool:
    """Publish a staged file; False where the name is taken."""
    try:
        os.link(staged, final)
    except FileExistsError:
        return False
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
