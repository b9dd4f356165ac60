"""Bloom checkpoints that store the head although it is the embeddings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file


def with_stored_head(tiny_bloom: Path) -> dict[str, Any]:
    tensors = load_file(tiny_bloom / "model.safetensors")
    assert "lm_head.weight" not in tensors, "transformers stores tied embeddings once"
    return tensors | {"lm_head.weight": tensors["transformer.word_embeddings.weight"].clone()}


@pytest.fixture(scope="session")
def tiny_bloom_head_twice(tiny_bloom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tied Bloom, whose file also stores the head."""
    folder = tmp_path_factory.mktemp("bloom-head-twice") / "model"
    shutil.copytree(tiny_bloom, folder)
    tensors = with_stored_head(tiny_bloom)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny_bloom_pickled(tiny_bloom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tied Bloom as older checkpoints are: pytorch_model.bin with both tensors."""
    folder = tmp_path_factory.mktemp("bloom-pickled") / "model"
    shutil.copytree(tiny_bloom, folder)
    (folder / "model.safetensors").unlink()
    torch.save(with_stored_head(tiny_bloom), folder / "pytorch_model.bin")
    return folder
