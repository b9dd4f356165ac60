"""Baichuan2-7B → Llama.

Baichuan2-7B computes what Llama does, with two differences: q, k and v are one matrix, and the head
is a NormHead, whose logits are h · w / max(|w|, 1e-12) for each row w of the head.

Source: the technical report (arXiv 2309.10305) and the published modeling code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rgpt_batch.conversion.layout import Layout
from rgpt_batch.conversion.llama import decoder_shapes
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_BAICHUAN_1_VOCAB_SIZE = 64000
_HIDDEN_SIZE_OF_7B = 4096
_ROPE_THETA = 10000.0
_NORM_EPS = 1e-12
# So that float32 copies of a head of half precision stay small.
_ROWS_AT_ONCE = 4096


def baichuan_layout(config: Settings) -> Layout:
    """Describe the conversion of a Baichuan2-7B.

    Raises:
        ConfigError: It is another Baichuan, or a setting is missing or unknown.
    """
    _check(config)
    hidden, vocab = config.integer("hidden_size"), config.integer("vocab_size")
    intermediate = config.integer("intermediate_size")
    num_layers = config.integer("num_hidden_layers")
    num_heads = config.integer("num_attention_heads")
    target = decoder_shapes(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=num_layers,
        num_key_value_rows=hidden,
    )
    qkv = re.compile(r"(.*\.self_attn)\.([qkv])_proj\.weight")
    expected = {name: shape for name, shape in target.items() if not qkv.fullmatch(name)}
    expected |= {
        f"model.layers.{number}.self_attn.W_pack.weight": (3 * hidden, hidden)
        for number in range(num_layers)
    }
    return Layout(
        name="Baichuan2-7B",
        expected=expected,
        ignored=re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
        convert=_convert,
        config={
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": vocab,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_heads,
            "hidden_act": "silu",
            "max_position_embeddings": config.integer("max_position_embeddings"),
            "rms_norm_eps": config.number("rms_norm_eps"),
            "rope_theta": _ROPE_THETA,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            **{name: config.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        },
        rules=(
            "Baichuan2-7B to Llama: W_pack's rows are q, k and v",
            "NormHead folded into lm_head: rows normalised in float32, then cast back",
        ),
    )


def _check(config: Settings) -> None:
    architectures = config.get("architectures", [])
    if (
        "BaichuanForCausalLM" not in architectures
        or config.integer("vocab_size") == _BAICHUAN_1_VOCAB_SIZE
    ):
        raise ConfigError(
            f"{config.file}: {architectures} with {config.integer('vocab_size'):,} tokens is not "
            "Baichuan2, whose head is normalised. Only Baichuan2-7B can be converted."
        )
    # The 13B models have ALiBi instead of rotary positions, and no such setting.
    if (
        "max_position_embeddings" not in config
        or config.integer("hidden_size") > _HIDDEN_SIZE_OF_7B
    ):
        raise ConfigError(
            f"{config.file}: this is Baichuan2-13B or a relative. Its positions are ALiBi's, which "
            "Llama does not have. Only Baichuan2-7B can be converted."
        )
    config.require("hidden_act", "silu")
    config.require("tie_word_embeddings", False)
    config.require("rope_scaling", None)
    config.require("quantization_config", None)
    if config.integer("hidden_size") % config.integer("num_attention_heads"):
        raise ConfigError(f"{config.file}: hidden_size is not a multiple of num_attention_heads.")


def _convert(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name.endswith(".W_pack.weight"):
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield name.replace("W_pack", f"{part}_proj"), rows
    elif name == "lm_head.weight":
        yield name, normalised_rows(tensor)
    else:
        yield name, tensor


def normalised_rows(weight: Tensor) -> Tensor:
    """Divide each row by its length, in float32, and return the weight's own dtype.

    Rows that are normalised already stay as they are, up to rounding. A row of zeros stays zero.
    """
    import torch

    result = torch.empty_like(weight)
    for start in range(0, len(weight), _ROWS_AT_ONCE):
        rows = weight[start : start + _ROWS_AT_ONCE].float()
        result[start : start + _ROWS_AT_ONCE] = torch.nn.functional.normalize(rows, eps=_NORM_EPS)
    return result
