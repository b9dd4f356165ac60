"""The weights of a folder: safetensors or pickled, in one file or in shards with an index."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgpt_batch.conversion.settings import Settings
from rgpt_batch.errors import ConfigError
from rgpt_batch.formatting import format_bytes

if TYPE_CHECKING:
    from torch import Tensor

_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_ZIP_MAGIC = b"PK\x03\x04"
# Names of safetensors' types: F16, BF16, F8_E4M3, I8, U8, BOOL.
_TYPE = re.compile(r"(BF|F|I|U)(\d+)")


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
    """What is known of a tensor without reading its values.

    Attributes:
        dtype: As its file names it.
        num_bits: Of one number.
    """

    shape: tuple[int, ...]
    dtype: str
    num_bits: int
    is_float: bool


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
        for name, tensor in read_facts(file):
            if name in facts:
                raise ConfigError(f"{file}: tensor '{name}' is in another file as well.")
            if weights.listed is not None and weights.listed.get(name) != file.name:
                raise ConfigError(f"{file}: tensor '{name}' is not where the index says.")
            facts[name] = tensor
    if not facts:
        raise ConfigError(f"{weights.files[0]}: holds no tensors. Download it again.")
    if lost := sorted((weights.listed or {}).keys() - facts.keys()):
        raise ConfigError(
            f"{weights.files[0].parent}: lacks {len(lost)} tensors that its index lists, such as "
            f"'{lost[0]}'. Download it again."
        )
    return facts


def has_header(file: Path) -> bool:
    """Whether read_facts reads no values of a file."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as stream:
        return stream.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def read_facts(file: Path) -> Iterator[tuple[str, TensorFacts]]:
    """Yield what a file says of its tensors.

    Raises:
        ConfigError: The file is damaged, or holds more than tensors.
    """
    if file.suffix == ".safetensors":
        yield from _read_headers(file)
        return
    for name, tensor in _read_pickled(file):
        yield (
            name,
            TensorFacts(
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype),
                num_bits=tensor.element_size() * 8,
                is_float=tensor.is_floating_point(),
            ),
        )


def read_tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a file with their names.

    Values of safetensors are read as they are asked for, tensor by tensor. Pickled ones are mapped,
    except in the format of torch before 1.6, which is read whole.

    Raises:
        ConfigError: The file is damaged, holds more than tensors, or cannot be mapped.
    """
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickled(file)


def _read_headers(file: Path) -> Iterator[tuple[str, TensorFacts]]:
    with _open_safetensors(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is no dict)
            header = tensors.get_slice(name)
            dtype = header.get_dtype()
            found = _TYPE.match(dtype)
            yield (
                name,
                TensorFacts(
                    shape=tuple(header.get_shape()),
                    dtype=dtype,
                    num_bits=int(found[2]) if found else 8,
                    is_float=bool(found and "F" in found[1]),
                ),
            )


def _read_safetensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with _open_safetensors(file) as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is no dict)
            yield name, tensors.get_tensor(name)


@contextmanager
def _open_safetensors(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        # A map of it, which is the default, the system refuses where it is larger than the memory.
        with safe_open(file, framework="pt", backend="pread") as tensors:
            yield tensors
    except SafetensorError as error:
        raise _damaged(file, error) from error
    except MemoryError as error:
        raise ConfigError(
            f"{file}: not enough memory to read one of its tensors. Take a machine with more."
        ) from error


def _read_pickled(file: Path) -> Iterator[tuple[str, Tensor]]:
    import torch

    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=has_header(file))
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{file}: holds something other than tensors, or is damaged. Python code in it is "
            "never run. Take the file from its publisher again, or as safetensors."
        ) from error
    except Exception as error:
        # The restricted unpickler lets many kinds of exceptions through.
        if "Cannot allocate memory" in str(error):
            size = format_bytes(file.stat().st_size)
            raise ConfigError(
                f"{file}: the system gives no memory for a file of {size}, of which only a part is "
                "read at once. Take a machine with more memory, or allow it for the time being: "
                "sysctl vm.overcommit_memory=1"
            ) from error
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
