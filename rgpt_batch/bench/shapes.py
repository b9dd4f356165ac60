"""Models of the published sizes with random weights, and what one score costs in FLOPs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The numbers that decide how fast a decoder can be.

    Attributes:
        ffn_size: Width of the feed-forward layer.
        num_ffn_matrices: 2 with GELU (Bloom), 3 with a gate (Llama, Qwen2).
    """

    name: str
    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    ffn_size: int
    num_ffn_matrices: int

    @property
    def num_layer_parameters(self) -> int:
        """Weights of all layers' matrices, embeddings left out."""
        kv_size = self.hidden_size * self.num_kv_heads // self.num_heads
        attention = 2 * self.hidden_size * (self.hidden_size + kv_size)
        ffn = self.num_ffn_matrices * self.hidden_size * self.ffn_size
        return self.num_layers * (attention + ffn)

    def flops_per_score(self, num_tokens: int, num_query_tokens: int) -> float:
        """FLOPs that a score needs: the body for every token, the head for the query's rows.

        Attention is causal: query t meets t + 1 keys. Nothing is shared between pairs.
        """
        body = 2.0 * self.num_layer_parameters * num_tokens
        attention = 2.0 * self.num_layers * self.hidden_size * num_tokens * (num_tokens + 1)
        return body + attention + 2.0 * self.vocab_size * self.hidden_size * num_query_tokens


def _bloom(name: str, hidden_size: int, num_layers: int, num_heads: int) -> ModelShape:
    return ModelShape(
        name=name,
        model_type="bloom",
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        vocab_size=250_880,
        ffn_size=4 * hidden_size,
        num_ffn_matrices=2,
    )


def _seven_billion(name: str, model_type: str, vocab_size: int) -> ModelShape:
    return ModelShape(
        name=name,
        model_type=model_type,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        vocab_size=vocab_size,
        ffn_size=11_008,
        num_ffn_matrices=3,
    )


SHAPES = {
    shape.name: shape
    for shape in (
        _bloom("bloom-560m", 1024, 24, 16),
        _bloom("bloom-1b1", 1536, 24, 16),
        _bloom("bloom-3b", 2560, 30, 32),
        _bloom("bloom-7b", 4096, 30, 32),
        _seven_billion("llama2-7b", "llama", 32_000),
        # Both are scored as converted checkpoints: see configs/.
        _seven_billion("baichuan2-7b", "llama", 125_696),
        _seven_billion("qwen-7b", "qwen2", 151_936),
        ModelShape(
            name="smollm2-135m",
            model_type="llama",
            hidden_size=576,
            num_layers=30,
            num_heads=9,
            num_kv_heads=3,
            vocab_size=49_152,
            ffn_size=1536,
            num_ffn_matrices=3,
        ),
    )
}


def save_random_model(shape: ModelShape, folder: Path, tokenizer: Path) -> Path:
    """Write a checkpoint of this shape with random bfloat16 weights, once.

    Args:
        shape: Which sizes.
        folder: Where to; complete if it has a config.json.
        tokenizer: Folder whose tokenizer is copied; its ids must lie below the shape's vocabulary.
    """
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_heads,
        "torch_dtype": "bfloat16",
    }
    if shape.model_type == "bloom":
        settings |= {"n_layer": shape.num_layers, "n_head": shape.num_heads}
    else:
        settings |= {
            "num_hidden_layers": shape.num_layers,
            "num_key_value_heads": shape.num_kv_heads,
            "intermediate_size": shape.ffn_size,
            "tie_word_embeddings": False,
        }
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.model_type, **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    staged = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staged, ignore_errors=True)
    model.save_pretrained(staged)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, staged)
    staged.rename(folder)
    return folder
