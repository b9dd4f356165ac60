"""Qwen-7B (the first Qwen) → Qwen2.

They compute the same up to seq_length tokens. For longer prompts the first Qwen changes its rotary
base (dynamic NTK) and scales queries (logn), which Qwen2 does not; so the target ends there.
The MLP is c_proj(w1·x ⊙ silu(w2·x)): w2 is the gate. intermediate_size counts both halves.

Source: the published modeling code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rgpt_batch.conversion.layout import Layout
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_TARGET_NAMES = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "ln_1.weight": "input_layernorm.weight",
    "ln_2.weight": "post_attention_layernorm.weight",
    "attn.c_proj.weight": "self_attn.o_proj.weight",
    "mlp.w1.weight": "mlp.up_proj.weight",
    "mlp.w2.weight": "mlp.gate_proj.weight",
    "mlp.c_proj.weight": "mlp.down_proj.weight",
}


def qwen_layout(config: Settings) -> Layout:
    """Describe the conversion of a first Qwen. The files of August 2023 spell settings otherwise.

    Raises:
        ConfigError: A setting is missing, or changes what the model computes.
    """
    config.require("no_bias", True)
    config.require("rotary_pct", 1.0)
    config.require("tie_word_embeddings", False)
    config.require("scale_attn_weights", True)
    config.require("apply_residual_connection_post_layernorm", False)
    config.require("quantization_config", None)
    config.require("activation", "swiglu")
    config.require("pos_emb", "rotary")
    hidden = config.integer("hidden_size", "n_embd")
    vocab = config.integer("vocab_size", "padded_vocab_size")
    both_halves = config.integer("intermediate_size", "ffn_hidden_size")
    num_layers = config.integer("num_hidden_layers", "n_layer")
    num_heads = config.integer("num_attention_heads", "n_head")
    if config.integer("kv_channels") * num_heads != hidden:
        raise ConfigError(f"{config.file}: kv_channels times heads is not hidden_size.")
    if both_halves % 2:
        raise ConfigError(f"{config.file}: intermediate_size is odd; it counts two equal halves.")
    intermediate = both_halves // 2
    layer = {
        "ln_1.weight": (hidden,),
        "ln_2.weight": (hidden,),
        "attn.c_attn.weight": (3 * hidden, hidden),
        "attn.c_attn.bias": (3 * hidden,),
        "attn.c_proj.weight": (hidden, hidden),
        "mlp.w1.weight": (intermediate, hidden),
        "mlp.w2.weight": (intermediate, hidden),
        "mlp.c_proj.weight": (hidden, intermediate),
    }
    expected: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (vocab, hidden),
        "transformer.ln_f.weight": (hidden,),
        "lm_head.weight": (vocab, hidden),
    }
    expected |= {
        f"transformer.h.{number}.{name}": shape
        for number in range(num_layers)
        for name, shape in layer.items()
    }
    max_length = config.integer("seq_length")
    return Layout(
        name="Qwen (v1)",
        expected=expected,
        ignored=re.compile(
            r"transformer\.(h\.\d+\.attn\.(masked_bias|rotary_emb\.inv_freq)|rotary_emb\.inv_freq)"
        ),
        convert=_convert,
        config={
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_heads,
            "hidden_act": "silu",
            "max_position_embeddings": max_length,
            "rms_norm_eps": config.number("layer_norm_epsilon"),
            "rope_theta": config.number("rotary_emb_base"),
            "use_sliding_window": False,
            "tie_word_embeddings": False,
        },
        rules=(
            "Qwen (v1) to Qwen2: c_attn's rows and biases are q, k and v; w2 is the gate, w1 the "
            "up projection",
            f"max_position_embeddings is seq_length, {max_length}: beyond it the two differ",
        ),
    )


def _convert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name in _TARGET_NAMES:
        yield _TARGET_NAMES[name], tensor
        return
    _, _, number, part = name.split(".", 3)
    prefix = f"model.layers.{number}"
    if part.startswith("attn.c_attn."):
        kind = part.rpartition(".")[2]
        for letter, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{prefix}.self_attn.{letter}_proj.{kind}", rows
    else:
        yield f"{prefix}.{_LAYER_NAMES[part]}", tensor
