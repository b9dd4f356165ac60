"""The converted folder: made beside its place, put there in one step when it is whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgpt_batch.conversion.weights import index_of
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_STAGING_SUFFIX = ".converting"


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Yield an empty folder, and put it in its place if the block ends well.

    Nothing may load a folder that is half written. So it has another name meanwhile, and is removed
    on any error; after a kill it is left under that name.

    Raises:
        ConfigError: The place is taken, or another conversion writes there or was killed.
    """
    staging = place.with_name(f".{place.name}{_STAGING_SUFFIX}")
    _check_free(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        staging.mkdir()
    except FileExistsError as error:
        raise ConfigError(
            f"{staging}: another conversion to {place.name} runs, or was killed. In the second "
            "case delete that folder, then run the same command again."
        ) from error
    try:
        yield staging
        sync(staging)
        _check_free(place)
        staging.rename(place)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync(place.parent)


def _check_free(place: Path) -> None:
    if place.exists() or place.is_symlink():
        raise ConfigError(f"{place}: exists already. Name a folder that does not.")


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def file_sha256(file: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class ShardWriter:
    """Writes tensors as safetensors, a shard as soon as it is full.

    Memory: one shard, or one tensor where that is larger.

    Args:
        folder: Where to.
        max_shard_bytes: Size of a shard, unless one tensor alone is larger.
    """

    def __init__(self, folder: Path, max_shard_bytes: int) -> None:
        self._folder = folder
        self._max_shard_bytes = max_shard_bytes
        self._waiting: dict[str, Tensor] = {}
        self._shards: list[list[str]] = []
        self._bytes_of_dtypes: Counter[str] = Counter()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take a tensor; what is yielded by others may be a view, so it is copied."""
        if self._waiting and self._waiting_bytes() + tensor.nbytes > self._max_shard_bytes:
            self._write_shard()
        self._waiting[name] = tensor.clone(memory_format=_contiguous())
        self._bytes_of_dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.nbytes

    @property
    def num_tensors(self) -> int:
        """Tensors written so far."""
        return sum(map(len, self._shards))

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors taken so far."""
        return self._bytes_of_dtypes.total()

    @property
    def main_dtype(self) -> str:
        """The type that most of the bytes have."""
        return self._bytes_of_dtypes.most_common(1)[0][0]

    def finish(self) -> None:
        """Write what waits, name the shards by their number, and write their index."""
        self._write_shard()
        number = len(self._shards)
        if number == 1:
            self._shard_path(1).rename(self._folder / "model.safetensors")
            return
        shards = {f"model-{i:05}-of-{number:05}.safetensors": i for i in range(1, number + 1)}
        for name, i in shards.items():
            self._shard_path(i).rename(self._folder / name)
        text = index_of({name: self._shards[i - 1] for name, i in shards.items()}, self.num_bytes)
        (self._folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    def _waiting_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._waiting.values())

    def _shard_path(self, number: int) -> Path:
        # The number of shards is known at the end only.
        return self._folder / f"shard-{number}.part"

    def _write_shard(self) -> None:
        from safetensors.torch import save_file

        self._shards.append(list(self._waiting))
        save_file(self._waiting, self._shard_path(len(self._shards)), metadata={"format": "pt"})
        self._waiting = {}


def _contiguous() -> Any:
    import torch

    return torch.contiguous_format
