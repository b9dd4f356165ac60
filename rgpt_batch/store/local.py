"""An output folder on a local disk or a POSIX network file system.

A unit is written under a name of its own in the staging folder, flushed to disk, and then linked to
its final name. `os.link` fails where that name exists, so the first of two writers wins, and no
reader ever sees a half-written file. Why not rename: it would replace what another attempt, perhaps
one thought dead, has already published.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.errors import CommitError, ManifestMismatch
from rgpt_batch.manifest import Manifest
from rgpt_batch.records import UnitFailure
from rgpt_batch.store.base import CommittedFile

_PART = re.compile(r"part-(\d{6,})\.parquet")


class LocalStore:
    """See Store."""

    def __init__(self, output: str) -> None:
        self.location = str(Path(output).absolute())
        self._folder = Path(self.location)
        self._private = self._folder / "_rgpt"
        self._staging = self._private / "staging"

    def has_manifest(self) -> bool:
        """See Store."""
        return any(self._private.glob("plan-*.json"))

    def load_manifest(self) -> Manifest | None:
        """See Store."""
        if self._folder.exists() and not self._folder.is_dir():
            raise ManifestMismatch(f"{self.location}: the output is a file, expected a folder.")
        self._refuse_links()
        plans = sorted(self._private.glob("plan-*.json"))
        if len(plans) > 1:
            raise ManifestMismatch(
                f"{self.location}: holds {len(plans)} plans, expected one. "
                "Use another output folder, or --on-change overwrite."
            )
        if plans:
            return Manifest.from_json(plans[0].read_bytes(), str(plans[0]))
        if foreign := [file.name for file in self._folder.glob("*") if file != self._private]:
            raise ManifestMismatch(
                f"{self.location}: the folder is not empty ({', '.join(sorted(foreign)[:3])} …) "
                "and belongs to no job of rgpt-batch. Use another output folder."
            )
        return None

    def _refuse_links(self) -> None:
        """Refuse folders of ours that lead elsewhere: what is written there may be another's."""
        folders = (self._private, self._staging, self._private / "runs", self._private / "failed")
        for folder in folders:
            if folder.is_symlink():
                raise ManifestMismatch(
                    f"{folder}: a symbolic link, expected a folder. Remove it, or use another "
                    "output folder."
                )

    def save_manifest(self, manifest: Manifest) -> None:
        """See Store."""
        final = self._private / f"plan-{manifest.fingerprint}.json"
        with self._staged(final) as staged:
            _write_durably(staged, manifest.to_json())
            _link(staged, final)

    def committed(self) -> dict[str, CommittedFile]:
        """See Store."""
        if not self._folder.is_dir():
            return {}
        files = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if match := _PART.fullmatch(entry.name):
                    if entry.is_symlink():
                        raise ManifestMismatch(
                            f"{entry.path}: a symbolic link, expected a file. Delete it, and run "
                            "the same command again."
                        )
                    files[match[1]] = CommittedFile(
                        unit_id=match[1], path=entry.path, size=entry.stat().st_size
                    )
        return dict(sorted(files.items()))

    def commit(self, unit_id: str, attempt: str, table: pa.Table) -> bool:
        """See Store."""
        final = self._folder / f"part-{unit_id}.parquet"
        with self._staged(final, attempt) as staged:
            with staged.open("wb") as stream:
                pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
                os.fsync(stream.fileno())
            return _link(staged, final)

    def write_success(self, summary: dict[str, Any]) -> None:
        """See Store."""
        self._replace(self._folder / "_SUCCESS", summary)
        shutil.rmtree(self._staging, ignore_errors=True)

    def read_success(self) -> dict[str, Any] | None:
        """See Store."""
        return _read_json(self._folder / "_SUCCESS")

    def write_run(self, run_id: str, record: dict[str, Any]) -> None:
        """See Store."""
        self._replace(self._private / "runs" / f"{run_id}.json", record)

    def read_runs(self) -> list[dict[str, Any]]:
        """See Store."""
        records = map(_read_json, sorted((self._private / "runs").glob("*.json")))
        return [record for record in records if record is not None]

    def write_status(self, status: dict[str, Any]) -> None:
        """See Store."""
        self._replace(self._private / "status.json", status)

    def read_status(self) -> dict[str, Any] | None:
        """See Store."""
        return _read_json(self._private / "status.json")

    def write_failures(self, failures: list[UnitFailure]) -> None:
        """See Store."""
        folder = self._private / "failed"
        shutil.rmtree(folder, ignore_errors=True)
        for failure in failures:
            self._replace(folder / f"{failure.unit_id}.json", asdict(failure))

    def read_failures(self) -> list[UnitFailure]:
        """See Store."""
        records = map(_read_json, sorted((self._private / "failed").glob("*.json")))
        return [UnitFailure(**record) for record in records if record is not None]

    def clear(self) -> None:
        """See Store. _SUCCESS goes first, so that no reader takes the rest for complete."""
        with _commit_errors(self._folder):
            (self._folder / "_SUCCESS").unlink(missing_ok=True)
            for file in self.committed().values():
                Path(file.path).unlink(missing_ok=True)
        shutil.rmtree(self._private, ignore_errors=True)

    @contextmanager
    def _staged(self, final: Path, attempt: str | None = None) -> Iterator[Path]:
        """Give a path of its own to write to, before the file gets its final name."""
        staged = self._staging / f"{final.name}.{attempt or uuid.uuid4().hex}"
        with _commit_errors(final):
            self._staging.mkdir(parents=True, exist_ok=True)
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield staged
            finally:
                staged.unlink(missing_ok=True)

    def _replace(self, final: Path, record: dict[str, Any]) -> None:
        with self._staged(final) as staged:
            _write_durably(staged, json.dumps(record, indent=1).encode())
            staged.replace(final)


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


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        os.fsync(stream.fileno())


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return a record, or None where it is absent or damaged: each can be written again."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None
