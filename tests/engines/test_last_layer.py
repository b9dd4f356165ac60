"""The end of the last layer, which only the rows of queries go through: same scores, less work."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from rgpt_batch.engines.references import LikelihoodReference
from rgpt_batch.records import TokenizedPair
from tests.engines.configs import float32_config
from tests.engines.query_rows import MARGIN, MEASURED, largest_difference, query_rows
from tests.engines.shared_prefixes import mixed_pairs
from tests.models import VOCAB_SIZE, save_tiny_tokenizer, set_config

pytestmark = pytest.mark.vllm

TOLERANCE = MARGIN * MEASURED["tiny_llama"]


def save_tiny(folder: Path, kind: str) -> Path:
    """Save a random two-layer model of another architecture."""
    import transformers

    torch.manual_seed(2)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = getattr(transformers, f"{kind}Config")(
        **sizes, **heads, intermediate_size=256, initializer_range=0.3, tie_word_embeddings=True
    )
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(torch.float32)
    model.save_pretrained(folder)
    return save_tiny_tokenizer(folder)


def difference(folder: Path, pairs: list[TokenizedPair], **engine: Any) -> float:
    """Largest |logprob - the reference's|, nats."""
    config = float32_config(folder, **engine)
    expected = LikelihoodReference(config.model).score(pairs)
    with query_rows(config) as opened:
        return largest_difference(opened.score(pairs), expected)


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        ("tiny_llama", ("llama", "LlamaMLP")),
        ("tiny_bloom", ("bloom", "BloomMLP")),
    ],
)
def test_the_last_mlp_sees_the_rows_of_queries_alone(
    model: str,
    classes: tuple[str, str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib

    module, name = classes
    mlp = getattr(importlib.import_module(f"vllm.model_executor.models.{module}"), name)
    forward = mlp.forward
    num_rows: Counter[int] = Counter()

    def counting(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        num_rows[id(self)] += len(x)
        result: torch.Tensor = forward(self, x)
        return result

    monkeypatch.setattr(mlp, "forward", counting)
    pairs = mixed_pairs(3, 60)[::4]
    config = float32_config(request.getfixturevalue(model), prefix_caching=False)
    with query_rows(config) as engine:
        num_rows.clear()
        engine.score(pairs)
    first, last = num_rows.values()
    assert last == sum(pair.num_query_tokens for pair in pairs)
    assert first >= sum(len(pair.token_ids) - 1 for pair in pairs)


@pytest.mark.parametrize(
    "model", [pytest.param("tiny_llama", marks=pytest.mark.long), "tiny_bloom"]
)
def test_compiled_models_equal_the_reference(model: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    assert difference(folder, mixed_pairs(12, 300), enforce_eager=False) <= TOLERANCE


def test_bloom_whose_residual_is_normalised_equals_the_reference(
    tiny_bloom: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_bloom, tmp_path / "bloom")
    set_config(folder, apply_residual_connection_post_layernorm=True)
    pairs = mixed_pairs(4, 100)
    assert difference(folder, pairs) <= TOLERANCE
    plain = LikelihoodReference(float32_config(tiny_bloom).model).score(pairs)
    other = LikelihoodReference(float32_config(folder).model).score(pairs)
    assert largest_difference(plain, other) > 0.01


@pytest.mark.parametrize("kind", ["Qwen2", "Mistral", "Gemma2"])
def test_other_models_equal_the_reference(kind: str, tmp_path: Path) -> None:
    """Qwen2's layers are Llama's; Mistral's are derived from them; Gemma2 has more norms."""
    assert difference(save_tiny(tmp_path / kind, kind), mixed_pairs(4, 100)) <= TOLERANCE
