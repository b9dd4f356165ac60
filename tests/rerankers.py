"""Small random models that judge pairs. The two of the paper are converted from their layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.models import save_tiny_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranker:
    """A converted model.

    Attributes:
        folder: Beside it is what it was made from.
        tensors: Those of the published checkpoint, by name.
        factors: Those of its adapter.
    """

    folder: Path
    tensors: dict[str, Any]
    factors: dict[str, Any]


def job_options(folder: Path, method: str) -> dict[str, str]:
    """What differs on CPU from a published configuration; prompts are longer than a step."""
    return {
        "model.name": str(folder),
        "model.dtype": "float32",
        "engine.method": method,
        "engine.kv_cache_bytes": str(64 * 2**20),
        "engine.max_num_seqs": "16",
        "engine.max_num_batched_tokens": "96",
        "engine.enforce_eager": "true",
        "executor.gpus_per_worker": "null",
    }


@pytest.fixture(scope="session")
def tiny_monobert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    """MonoBERT with two labels, converted from Google's bare config and a pickle of 2020."""
    from rgpt_batch.conversion.convert import convert
    from tests.conversion.published import save_monobert

    folder = tmp_path_factory.mktemp("monobert")
    tensors = save_monobert(folder / "published")
    convert(folder / "published", folder / "bert")
    yield Reranker(
        folder=folder / "bert",
        tensors=tensors,
        factors={},
    )


@pytest.fixture(scope="session")
def tiny_rankllama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    """RankLLaMA: a Llama with Llama-2's tokenizer.model, and the adapter merged into it."""
    from rgpt_batch.conversion.convert import convert
    from tests.conversion.published import save_rankllama

    folder = tmp_path_factory.mktemp("rankllama")
    tensors, factors = save_rankllama(folder / "adapter", folder / "base")
    convert(folder / "adapter", folder / "merged", base=folder / "base")
    yield Reranker(
        folder=folder / "merged",
        tensors=tensors,
        factors=factors,
    )


def save_random(folder: Path, model_class: str, config_class: str, **settings: Any) -> Path:
    """Save a random model of transformers in float32, with the tiny tokenizer.

    Weights are large enough for logits to differ by some units between prompts.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**settings)
    model = getattr(transformers, model_class)(config).to(torch.float32)
    model.save_pretrained(folder)
    return save_tiny_tokenizer(folder)
