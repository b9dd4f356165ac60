"""The weights of a folder: safetensors or pickled, in one file or in shards with an index."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rgpt_batch.conversion.settings import Settings
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, dtype

_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that hold a model's tensors.

    Attributes:
        files: All shards, in their order.
        listed: Which shard holds which tensor, as the index says; None without one.
    """

    files: tuple[Path, ...]
    listed: dict[str, str] | None = None

    @property
    def are_pickled(self) -> bool:
        """Whether they are what torch.save writes."""
        return self.files[0].suffix == ".bin"


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What is known of a tensor without reading its values."""

    shape: tuple[int, ...]
    dtype: dtype


def find_weights(folder: Path) -> WeightFiles | None:
    """Find a model's weights by their usual names; safetensors come before pickled ones.

    Raises:
        ConfigError: The index cannot be read, or names files that are not there.
    """
    for name in _SINGLE_FILES:
        single, index = folder / name, folder / f"{name}.index.json"
        if single.is_file() and index.is_file():
            raise ConfigError(
                f"{folder}: holds both {name} and {index.name}. Take away the one that is not used."
            )
        if single.is_file():
            return WeightFiles((single,))
        if index.is_file():
            return _read_index(index)
        pattern = f"{single.stem}-*-of-*{single.suffix}"
        if shards := sorted(folder.glob(pattern)):
            raise ConfigError(f"{folder}: holds {shards[0].name}, but no {index.name}.")
    return None


def _read_index(index: Path) -> WeightFiles:
    listed = Settings(index).get("weight_map")
    if not listed or not isinstance(listed, dict):
        raise ConfigError(f"{index}: has no 'weight_map'. Download it again.")
    for name in listed.values():
        # An index may name files in its own folder only.
        if not isinstance(name, str) or Path(name).name != name:
            raise ConfigError(f"{index}: {name!r} is not the name of a file beside it.")
        if Path(name).suffix != Path(index.stem.removesuffix(".index")).suffix:
            raise ConfigError(f"{index}: names {name}, which is of another format.")
    files = tuple(index.parent / name for name in sorted(set(listed.values())))
    if missing := [file.name for file in files if not file.is_file()]:
        raise ConfigError(f"{index}: names {missing[0]}, which is not there. Download it.")
    return WeightFiles(files, listed)


def scan(weights: WeightFiles) -> dict[str, TensorFacts]:
    """List all tensors, without reading values where the format allows that.

    Raises:
        ConfigError: A file is damaged, holds more than tensors, or differs from the index.
    """
    facts: dict[str, TensorFacts] = {}
    for file in weights.files:
        for name, tensor in read_tensors(file):
            if name in facts:
                raise ConfigError(f"{file}: tensor '{name}' is in another file as well.")
            if weights.listed is not None and weights.listed.get(name) != file.name:
                raise ConfigError(f"{file}: tensor '{name}' is not where the index says.")
            facts[name] = TensorFacts(tuple(tensor.shape), tensor.dtype)
    if not facts:
        raise ConfigError(f"{weights.files[0]}: holds no tensors. Download it again.")
    if lost := sorted((weights.listed or {}).keys() - facts.keys()):
        raise ConfigError(
            f"{weights.files[0].parent}: lacks {len(lost)} tensors that its index lists, such as "
            f"'{lost[0]}'. Download it again."
        )
    return facts


def is_mapped(file: Path) -> bool:
    """Whether read_tensors maps the values of a file, so that nothing is read of them."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as stream:
        return stream.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file with their names.

    Values are mapped, not read, except in the format of torch before 1.6, which is read whole.

    Raises:
        ConfigError: The file is damaged, or holds more than tensors.
    """
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)


def _read_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                yield name, tensors.get_tensor(name)
    except SafetensorError as error:
        raise _damaged(file, error) from error


def _read_pickled(file: Path) -> Iterator[tuple[str, Tensor]]:
    import torch

    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=is_mapped(file))
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{file}: holds something other than tensors, or is damaged. Python code in it is "
            "never run. Take the file from its publisher again, or as safetensors."
        ) from error
    except Exception as error:
        # The restricted unpickler lets many kinds of exceptions through.
        raise _damaged(file, error) from error
    if not isinstance(tensors, dict):
        raise ConfigError(f"{file}: holds a {type(tensors).__name__}, expected named tensors.")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ConfigError(
                f"{file}: '{name}' is a {type(tensor).__name__}, expected a tensor. Is this a "
                "training checkpoint? Save the model's state_dict alone."
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ConfigError(f"{file}: '{name}' is sparse or quantised, expected plain numbers.")
        yield name, tensor.detach()


def _damaged(file: Path, error: Exception) -> ConfigError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return ConfigError(f"{file}: is damaged or cut off ({reason}). Download it again.")


def index_of(shards: dict[str, list[str]], num_bytes: int) -> str:
    """Return the text of an index, for the tensors' names by shard."""
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(index, indent=2) + "\n"
