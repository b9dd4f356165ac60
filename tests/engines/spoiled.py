"""A model with an embedding that is no number, and a pair that fills a cache with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rgpt_batch.records import TokenizedPair
from tests.engines.configs import MAX_LENGTH
from tests.engines.shared_prefixes import to_pair

# No pair of shared_prefixes has it.
_TOKEN = 2
_EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight")
# Room for one prompt of full length, the token behind it, and vLLM's own block, where a block has
# 128 tokens: the next prompts get what it had.
_NUM_TOKENS = MAX_LENGTH + 2 * 128
# Keys and values of a token on one of two ranks, bytes: half of the heads, or of the two layers.
_TOKEN_BYTES = {"tiny_llama": 2 * 2 * 32 * 4, "tiny_bloom_with_head": 2 * 4 * 32 * 4}
# By model: of each of two ranks.
CACHE_BYTES = {name: _NUM_TOKENS * each for name, each in _TOKEN_BYTES.items()}


def spoiled_copy(model: Path, folder: Path) -> Path:
    """Copy a model whose head is not its embeddings, and spoil one of these."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    (embeddings,) = (name for name in tensors if name.endswith(_EMBEDDINGS))
    tensors[embeddings][_TOKEN] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def spoiled_pair() -> TokenizedPair:
    """Make a pair whose keys and values are no numbers."""
    return to_pair(np.full(MAX_LENGTH - 8, _TOKEN), np.arange(10, 18))
