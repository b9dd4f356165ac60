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

from typing_extensions import override

from rgpt_batch.errors import CommitError, ManifestMismatch
from rgpt_batch.output.store import PART, SUCCESS, CommittedFile, Store
from rgpt_batch.output.success import Success
from rgpt_batch.planning.manifest import Manifest

# Joining tables may take hours, but not so long without writing anything.
_STALE_SECONDS = 24 * 3600


class LocalStore(Store):
    """Publishes by linking staged files; see the module."""

    def __init__(self, output: str) -> None:
        self.location = str(Path(output).absolute())
        self._folder = Path(self.location)
        self._staging = self._folder / "_rgpt" / "staging"

    @property
    @override
    def log_folder(self) -> str:
        return str(self._folder / "_rgpt" / "logs")

    @override
    def load_manifest(self) -> Manifest | None:
        if self._folder.exists() and not self._folder.is_dir():
            raise ManifestMismatch(f"{self.location}: the output is a file, expected a folder.")
        self._refuse_links()
        return super().load_manifest()

    def _refuse_links(self) -> None:
        """Refuse folders of ours that lead elsewhere: what is written there may be another's."""
        for name in ("", "staging", "runs", "failed", "logs", "claims", "processes", "begun"):
            folder = self._folder / "_rgpt" / name
            if folder.is_symlink():
                raise ManifestMismatch(
                    f"{folder}: a symbolic link, expected a folder. Remove it, or use another "
                    "output folder."
                )

    @override
    def committed(self) -> dict[str, CommittedFile]:
        # In one pass: there may be a million of them.
        sizes: list[tuple[str, int]] = []
        for entry in self._entries(""):
            if not PART.fullmatch(entry.name):
                continue
            if entry.is_symlink():
                raise ManifestMismatch(
                    f"{entry.path}: a symbolic link, expected a file. Delete it, and run the "
                    "same command again."
                )
            with suppress(FileNotFoundError):
                sizes.append((entry.name, entry.stat().st_size))
        return self._files(sizes)

    @override
    def clear(self) -> None:
        self._refuse_links()
        super().clear()

    @override
    def write_success(self, success: Success) -> None:
        super().write_success(success)
        self._clear_staging()

    def _clear_staging(self) -> None:
        """Delete what killed runs have left behind; what belongs to one that still runs stays.

        All units are published, so that nobody needs what is staged for one; see _create. All else
        goes when it is a day old. Times are compared as the file system gives them: its clock may
        not be ours.
        """
        with suppress(OSError):
            now = (self._folder / SUCCESS).stat().st_mtime
            for staged in self._staging.iterdir():
                is_part = PART.fullmatch(staged.stem) is not None
                if not is_part and now - _last_change(staged) < _STALE_SECONDS:
                    continue
                if staged.is_dir():
                    shutil.rmtree(staged, ignore_errors=True)
                else:
                    staged.unlink(missing_ok=True)

    @override
    def _list(self, folder: str) -> dict[str, int]:
        return {name: status.st_size for name, status in self._scan(folder)}

    @override
    def _versions(self, folder: str) -> dict[str, str]:
        # A file is replaced by one of another inode.
        return {name: f"{s.st_ino}-{s.st_mtime_ns}" for name, s in self._scan(folder)}

    def _scan(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        # What is deleted in the meantime is not there.
        for entry in self._entries(folder):
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat()

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self._folder / folder) as entries,
        ):
            yield from entries

    @override
    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    @override
    def _create(self, name: str, content: bytes | memoryview, attempt: str) -> bool:
        final = self._folder / name
        with self._staged(name, content, attempt) as staged:
            try:
                return _link(staged, final)
            except FileNotFoundError:
                # Another run has found the job complete, and cleared the staging folder.
                if final.exists():
                    return False
                raise

    @override
    def _replace(self, name: str, content: bytes) -> None:
        with self._staged(name, content, uuid.uuid4().hex) as staged:
            staged.replace(self._folder / name)

    @override
    def _delete(self, names: Sequence[str]) -> None:
        with _commit_errors(self._folder):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

    @override
    def _delete_folder(self, folder: str, last: Sequence[str]) -> None:
        root = self._folder / folder
        late = [self._folder / name for name in last]
        # What another run deletes at the same time is gone all the same.
        with _commit_errors(root), suppress(FileNotFoundError):
            for path in sorted(root.iterdir(), key=late.__contains__):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            with suppress(OSError):  # Another run may be writing there again.
                root.rmdir()

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


def _last_change(path: Path) -> float:
    """Return when a file, or anything below a folder, last changed; seconds since the epoch."""
    times = [path.lstat().st_mtime]
    for below in path.rglob("*") if path.is_dir() else ():
        with suppress(FileNotFoundError):
            times.append(below.lstat().st_mtime)
    return max(times)


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
