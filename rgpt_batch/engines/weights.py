"""How much memory a checkpoint's weights take at least, from the headers of its files."""

from __future__ import annotations

import math
from pathlib import Path

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.conversion.weights import TensorFacts, find_weights, has_header, read_facts
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.model_files import local_folder

# Copies of `shared.weight` that old T5 files hold.
_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"


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
        total += math.prod(tensor.shape) * bits // 8
    return total


def _stored(folder: Path) -> dict[str, TensorFacts] | None:
    files = find_weights(folder)
    if files is None or not all(map(has_header, files.files)):
        return None
    return {name: tensor for file in files.files for name, tensor in read_facts(file)}
