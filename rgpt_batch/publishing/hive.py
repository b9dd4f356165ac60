"""Publishing to Hive-partitioned Parquet: a folder `fingerprint=…/date=…/part-….parquet` for a job.

On a file system the job's folder gets its name in one step, with everything in it. An object store
has no such step: its files appear one after the other, and `_SUCCESS` behind the last one. Readers
there who must not see half of a job read the folders with `_SUCCESS` alone.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rgpt_batch.errors import CommitError, ConfigError
from rgpt_batch.publishing.files import parquet_files
from rgpt_batch.publishing.publication import FINGERPRINT, Publication, Published
from rgpt_batch.storage import objects
from rgpt_batch.storage.connections import client_settings
from rgpt_batch.storage.files import local_path
from rgpt_batch.storage.uris import resolved

_SUCCESS = "_SUCCESS"


class _Record(BaseModel):
    """What a job's _SUCCESS says.

    Attributes:
        columns: Name → type of all columns, folders' included.
        files: Path below the job's folder → bytes.
    """

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    digest: str
    num_rows: int
    columns: dict[str, str]
    files: dict[str, int]


def publish_hive(rows: Publication, location: str, target_bytes: int) -> Published:
    """Add a job's folder to a folder of Parquet files.

    Args:
        rows: What to publish.
        location: The folder's path or URI.
        target_bytes: Of a file.

    Raises:
        ConfigError: The folder holds something else, other columns, or another state of the job.
        ShardError, StorageError: The output cannot be read.
        CommitError: The folder cannot be written.
    """
    client_settings(location)
    root = resolved(location)
    name = f"{FINGERPRINT}={rows.fingerprint}"
    folder = f"{root}/{name}"
    found = _names(root)
    if foreign := sorted(
        entry for entry in found if not entry.startswith((f"{FINGERPRINT}=", "_", "."))
    ):
        raise ConfigError(
            f"{location}: holds {foreign[0]}, which readers would take for a part of the table. "
            "Name a folder of its own."
        )
    record = _Record(
        fingerprint=rows.fingerprint,
        digest=rows.digest,
        num_rows=rows.success.num_rows,
        columns={field.name: str(field.type) for field in rows.schema},
        files={},
    )
    if others := sorted(entry for entry in found if entry.startswith(f"{FINGERPRINT}=")):
        _check_columns(location, f"{root}/{others[0]}", record)
    publish = _publish_local if local_path(root) else _publish_remote
    if (there := _published(folder)) is None:
        files = publish(rows, folder, record, target_bytes)
        if files is not None:
            return Published(change="published", num_files=files, state=folder)
        there = _published(folder)
    if there is None or there.digest != rows.digest:
        raise ConfigError(
            f"{folder}: another state of this job's rows was published. Files cannot be exchanged "
            "in one step: delete this folder, then run the same command again."
        )
    return Published(change="unchanged", num_files=0, state=folder)


def _publish_local(
    rows: Publication, folder: str, record: _Record, target_bytes: int
) -> int | None:
    """Write beside the table, then rename; returns the number of files, None if the name is taken.

    Beside it, because readers look for files everywhere below it.
    """
    final = Path(folder)
    root = final.parent
    prefix = f".{root.name}.rgpt-batch-{rows.fingerprint}-"
    staged = root.with_name(f"{prefix}{uuid.uuid4().hex}")
    with _commit_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        staged.mkdir()
    try:
        files = {}
        for path, content in _files(rows, target_bytes):
            with _commit_errors(root):
                _write_durably(staged / path, content)
            files[path] = len(content)
        with _commit_errors(root):
            _write_durably(staged / _SUCCESS, _json(record, files))
            for below in sorted(staged.rglob("*"), reverse=True):
                if below.is_dir():
                    _sync(below)
            _sync(staged)
            if final.exists():
                return None
            staged.rename(final)
            _sync(root)
    except CommitError:
        # Another attempt has published the rows, and has cleared up.
        if final.exists():
            return None
        raise
    finally:
        # Also what killed attempts have left: the rows are published, or this attempt has failed.
        shutil.rmtree(staged, ignore_errors=True)
    for left in root.parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    return len(files)


def _publish_remote(
    rows: Publication, folder: str, record: _Record, target_bytes: int
) -> int | None:
    """Write the files, compare them with a listing, then write _SUCCESS; returns their number."""
    # Without a true _SUCCESS, nothing there counts.
    if (success := f"{folder}/{_SUCCESS}") in (left := objects.list_tree(folder)):
        objects.delete([success])
    objects.delete([uri for uri in left if uri != success])
    files = {}
    for path, content in _files(rows, target_bytes):
        objects.replace(f"{folder}/{path}", content)
        files[path] = len(content)
    listed = {
        uri.removeprefix(f"{folder}/"): size for uri, size in objects.list_tree(folder).items()
    }
    if listed != files:
        raise CommitError(
            f"{folder}: somebody else writes here. Run the same command again when they are done."
        )
    is_ours = objects.create(success, _json(record, files), uuid.uuid4().hex)
    return len(files) if is_ours else None


def _files(rows: Publication, target_bytes: int) -> Iterator[tuple[str, memoryview]]:
    """Yield paths below the job's folder, and content: columns of folders are not in the files."""
    schema = rows.own_schema
    parts = "".join(f"{name}={value}/" for name, value in rows.partitions.items())
    groups = rows.groups(schema, target_bytes)
    for number, content in enumerate(parquet_files(groups, schema, target_bytes)):
        yield f"{parts}part-{number:05d}.parquet", content


def _published(folder: str) -> _Record | None:
    """Return what was published; None where _SUCCESS does not name exactly the files there."""
    record = _read(folder)
    return record if record is not None and record.files == _tree(folder) else None


def _check_columns(location: str, folder: str, ours: _Record) -> None:
    there = _read(folder)
    if there is not None and there.columns != ours.columns:
        differing = sorted(dict(there.columns.items() ^ ours.columns.items()))
        raise ConfigError(
            f"{location}: the folder does not fit the output: {', '.join(differing)} differ from "
            f"{folder}. Publish to another folder, or change what the job writes (--partition, "
            "output.pass_through)."
        )


def _read(folder: str) -> _Record | None:
    try:
        if local_path(folder):
            content = Path(folder, _SUCCESS).read_bytes()
        else:
            content = objects.read(f"{folder}/{_SUCCESS}")
        return _Record.model_validate_json(content)
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _tree(folder: str) -> dict[str, int]:
    """Return the files of a job's folder, without _SUCCESS, with their sizes."""
    if local_path(folder):
        below = Path(folder)
        found = {
            str(path.relative_to(below)): path.stat().st_size
            for path in below.rglob("*")
            if path.is_file()
        }
    else:
        listed = objects.list_tree(folder)
        found = {uri.removeprefix(f"{folder}/"): size for uri, size in listed.items()}
    found.pop(_SUCCESS, None)
    return found


def _names(root: str) -> list[str]:
    if not local_path(root):
        return list(objects.list_folder(root))
    try:
        return os.listdir(root)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{root}: expected a folder: {error.strerror}.") from error


def _json(record: _Record, files: dict[str, int]) -> bytes:
    content: dict[str, Any] = {**record.model_dump(), "files": files}
    return json.dumps(content, indent=1).encode()


def _write_durably(path: Path, content: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _commit_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommitError(
            f"{root}: cannot be written: {error}. Check space and permissions, and that the folder "
            "is no mount point; running the same command again is safe."
        ) from error
