"""How much memory a checkpoint's weights take at least, from the headers of its files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.conversion.weights import find_weights, is_mapped, read_tensors
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.model_files import local_folder

# Copies of `shared.weight` that old T5 files hold.
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
# Names of safetensors' types: F16, BF16, F8_E4M3, I8, U8, BOOL.
_TYPE = re.compile(r"(BF|F|I|U)(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """A tensor as its file describes it; bits are of one number."""

    num_numbers: int
    num_bits: int
    is_float: bool


def least_weight_bytes(
    model: ModelConfig, *, num_bits: int | None, with_head: bool = True
) -> int | None:
    """Reckon how many bytes the weights take at least when they are loaded.

    Tensors that may not be loaded are not counted: a head that may be the embeddings, and copies.

    Args:
        model: Which checkpoint.
        num_bits: What a number takes that is stored as floating point; None: what it takes in the
            file. In a quantised checkpoint it takes no more than there.
        with_head: Whether the model that is loaded has a head on the vocabulary.

    Returns:
        Bytes; None where nothing tells them: files that are not here yet, that are damaged, or that
        have to be read whole. Whoever loads them says what is wrong.
    """
    folder = local_folder(model.name, model.revision)
    if folder is None:
        return None
    try:
        settings = Settings(folder / "config.json")
        tensors = _stored(folder)
    except (ConfigError, OSError):
        return None
    if tensors is None:
        return None
    # Most families tie their head unless config.json says otherwise.
    if not with_head or settings.get("tie_word_embeddings") is not False:
        tensors.pop(_HEAD, None)
    if "shared.weight" in tensors:
        for name in _COPIES:
            tensors.pop(name, None)
    is_quantised = "quantization_config" in settings
    total = 0
    for tensor in tensors.values():
        bits = tensor.num_bits
        if tensor.is_float and num_bits is not None:
            bits = min(bits, num_bits) if is_quantised else num_bits
        total += tensor.num_numbers * bits // 8
    return total


def _stored(folder: Path) -> dict[str, _Stored] | None:
    files = find_weights(folder)
    if files is None or not all(map(is_mapped, files.files)):
        return None
    described = _of_pickle if files.are_pickled else _of_safetensors
    return {name: tensor for file in files.files for name, tensor in described(file)}


def _of_safetensors(file: Path) -> Iterator[tuple[str, _Stored]]:
    from safetensors import SafetensorError, safe_open

    try:
        # For torch, files larger than the machine's memory cannot be mapped.
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                header = tensors.get_slice(name)
                found = _TYPE.match(header.get_dtype())
                yield (
                    name,
                    _Stored(
                        num_numbers=math.prod(header.get_shape()),
                        num_bits=int(found[2]) if found else 8,
                        is_float=bool(found and "F" in found[1]),
                    ),
                )
    except SafetensorError as error:
        raise ConfigError(f"{file}: {error}") from error


def _of_pickle(file: Path) -> Iterator[tuple[str, _Stored]]:
    for name, tensor in read_tensors(file):
        yield (
            name,
            _Stored(
                num_numbers=tensor.numel(),
                num_bits=tensor.element_size() * 8,
                is_float=tensor.is_floating_point(),
            ),
        )
