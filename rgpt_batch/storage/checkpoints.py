"""Models in object stores: a machine copies one once, to a folder that engines load as any other.

    s3://bucket/models/bloom-7b/ ──▶ ~/.cache/rgpt-batch/models/<digest>/

The digest is taken of what the store lists: names, sizes and ETags. A job keeps it, so that all of
its workers load the same files, or none. RGPT_BATCH_CACHE names another folder than ~/.cache/….

A file gets its name when it is complete, and the folder a mark when all of its files are. Processes
of a machine wait for the one that copies.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rgpt_batch.errors import ConfigError, StorageError
from rgpt_batch.formatting import format_bytes
from rgpt_batch.storage import objects
from rgpt_batch.storage.locks import locked
from rgpt_batch.storage.uris import OBJECT_SCHEMES, is_uri, split_uri

WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt"}
_SMALL_SUFFIXES = {".json", ".txt", ".model", ".py", ".jinja", ".tiktoken"}
# A request for each part; several at once fill a fast network.
_PART_BYTES = 16 * 2**20
_NUM_REQUESTS = 8
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LISTING = ".listing.json"
_PARTIAL = ".partial"


def is_stored(name: str) -> bool:
    """Whether a model's name is a URI.

    Raises:
        ConfigError: The URI cannot be used.
    """
    if not is_uri(name):
        return False
    if split_uri(name)[0].partition("://")[0] not in OBJECT_SCHEMES:
        raise ConfigError(f"model '{name}': a model of the hub is named owner/name, without hf://.")
    return True


def digest_of(uri: str, expected: str | None = None) -> str:
    """Return what identifies the files that a model has in its store now.

    Raises:
        ConfigError: There is no model, or it has other files than are expected.
        StorageError: The store cannot be used.
    """
    return _digest(_listed(uri, expected))


def local_copy(uri: str, digest: str | None, *, weights: bool) -> Path:
    """Return the folder of this machine that has a model's files; copies them if it has not.

    Args:
        uri: Of the model's folder.
        digest: Of the files that are wanted; None: of those that are there now.
        weights: Whether the weights are wanted, or the small files alone.

    Raises:
        ConfigError: There is no model, or it has other files now.
        ShardError: It was replaced while it was copied.
        StorageError: The store or the disk cannot be used.
    """
    _check_digest(uri, digest)
    folder = _cache() / (digest or digest_of(uri))
    if _is_complete(folder, weights=weights):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not _is_complete(folder, weights=weights):
                _copy(uri, folder, weights=weights)
    except OSError as error:
        raise StorageError(
            f"{folder}: model '{uri}' cannot be copied there: {error.strerror or error}. Check the "
            "disk, or let RGPT_BATCH_CACHE name another folder."
        ) from error
    return folder


def file_names(uri: str, digest: str | None) -> list[str]:
    """Name a model's files, weights too; errors as local_copy."""
    folder = local_copy(uri, digest, weights=False)
    names: list[str] = json.loads((folder / _LISTING).read_text(encoding="utf-8"))
    return names


def _cache() -> Path:
    given = os.environ.get("RGPT_BATCH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given or Path(home, "rgpt-batch"), "models").absolute()


def _check_digest(uri: str, digest: str | None) -> None:
    if digest is not None and not _DIGEST.fullmatch(digest):
        raise ConfigError(
            f"model '{uri}': it has no revision '{digest}'; only models of the hub have. Leave it "
            "out."
        )


def _listed(uri: str, expected: str | None) -> dict[str, objects.ObjectInfo]:
    """Return the files that belong to a model; pickled weights only where there are no others."""
    _check_digest(uri, expected)
    found = objects.list_objects(uri)
    weights = {name for name in found if Path(name).suffix in WEIGHT_SUFFIXES}
    if safe := {name for name in weights if name.endswith(".safetensors")}:
        weights = safe
    files = {
        name: info
        for name, info in sorted(found.items())
        if name in weights or Path(name).suffix in _SMALL_SUFFIXES
    }
    if not any(name.endswith(".json") for name in files):
        raise ConfigError(
            f"{uri}: there is no model (no config.json or tokenizer.json). Name the folder that "
            "holds these files."
        )
    if expected not in (None, _digest(files)):
        raise ConfigError(
            f"{uri}: the model's files are not those that the job was planned with. Bring the old "
            "ones back, or score with the new ones into another output folder."
        )
    return files


def _digest(files: Mapping[str, objects.ObjectInfo]) -> str:
    lines = json.dumps([[name, info.version] for name, info in files.items()])
    return hashlib.sha256(lines.encode()).hexdigest()


def _mark(folder: Path, *, weights: bool) -> Path:
    return folder / (".has-weights" if weights else ".has-small-files")


def _is_complete(folder: Path, *, weights: bool) -> bool:
    return _mark(folder, weights=weights).exists()


def _copy(uri: str, folder: Path, *, weights: bool) -> None:
    files = _listed(uri, folder.name)
    for left in folder.glob(f"*{_PARTIAL}"):
        left.unlink()
    is_whole = weights or "adapter_config.json" in files
    wanted = {
        name: info
        for name, info in files.items()
        if (is_whole or Path(name).suffix not in WEIGHT_SUFFIXES) and not (folder / name).exists()
    }
    num_bytes, free = sum(info.size for info in wanted.values()), shutil.disk_usage(folder).free
    if num_bytes > free:
        raise StorageError(
            f"{folder}: model '{uri}' takes {format_bytes(num_bytes)}, and the disk has "
            f"{format_bytes(free)} left. Make room, or let RGPT_BATCH_CACHE name another folder."
        )
    with ThreadPoolExecutor(_NUM_REQUESTS) as pool:
        for name, info in wanted.items():
            _copy_file(info, folder / name, pool)
    (folder / _LISTING).write_text(json.dumps(list(files)), encoding="utf-8")
    for mark in {False, is_whole}:
        _mark(folder, weights=mark).touch()


def _copy_file(info: objects.ObjectInfo, target: Path, pool: ThreadPoolExecutor) -> None:
    """Copy an object; the file has its name once every byte is on the disk."""
    partial = target.with_name(f"{target.name}{_PARTIAL}")
    with partial.open("wb") as stream:
        descriptor = stream.fileno()

        def copy_part(start: int) -> None:
            end = min(start + _PART_BYTES, info.size)
            content = memoryview(objects.read_range(info, start, end))
            while content:
                written = os.pwrite(descriptor, content, end - len(content))
                content = content[written:]

        copied = [pool.submit(copy_part, start) for start in range(0, info.size, _PART_BYTES)]
        try:
            for part in copied:
                part.result()
        except BaseException:
            for part in copied:
                part.cancel()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        os.fsync(descriptor)
    partial.replace(target)
