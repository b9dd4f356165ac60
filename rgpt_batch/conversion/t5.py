"""T5 rerankers (MonoT5, RankT5): copies of the embeddings are left out, all else stays.

Checkpoints of 2020 hold the embeddings up to four times: for encoder, decoder and head as well.
Where the config ties the head to them, a head that differs would be lost by one version of
transformers and kept by another; such a checkpoint is refused.

Source: T5 (arXiv 1910.10683); the published checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rgpt_batch.conversion.layout import Layout
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from rgpt_batch.conversion.weights import TensorFacts

_SHARED, _HEAD = "shared.weight", "lm_head.weight"
_EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_START_TOKEN = 0
# What T5Config has for settings that old files leave out.
_NUM_BUCKETS = 32
_FEED_FORWARDS = ("relu", "gated-gelu")


def t5_layout(config: Settings, found: Mapping[str, TensorFacts]) -> Layout:
    """Describe the conversion of a T5 with encoder, decoder and head.

    Raises:
        ConfigError: A setting is missing or unknown.
    """
    config.require("feed_forward_proj", *_FEED_FORWARDS)
    config.require("quantization_config", None)
    # transformers 5 writes the second of these, and true for the first whatever it was.
    ties_head = config.get("tie_word_embeddings", True) and config.get(
        "scale_decoder_outputs", True
    )
    copies = {*_EMBEDDINGS, *({_HEAD} if ties_head else ())}
    vocab, hidden = config.integer("vocab_size"), config.integer("d_model")
    expected = _shapes(config) | {_SHARED: (vocab, hidden)}
    if not ties_head:
        expected[_HEAD] = (vocab, hidden)
    # Any of the copies can stand for all.
    present = {name for name in (_SHARED, *copies) if name in found}
    if present:
        del expected[_SHARED]
        expected |= dict.fromkeys(present, (vocab, hidden))
    return Layout(
        name="T5ForConditionalGeneration",
        expected=expected,
        # An old file's, which no model reads.
        ignored=re.compile(
            r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
        ),
        convert=_Embeddings(config, copies),
        config={
            "decoder_start_token_id": _START_TOKEN,
            **config.values,
            "architectures": ["T5ForConditionalGeneration"],
        },
        rules=("T5: copies of shared.weight, checked to be equal, left out",),
    )


class _Embeddings:
    """Lets tensors through, of equal embeddings the first."""

    def __init__(self, config: Settings, copies: set[str]) -> None:
        self._config = config
        self._names = {_SHARED, *copies}
        self._first: tuple[str, Tensor] | None = None

    def __call__(self, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
        import torch

        if name not in self._names:
            yield name, tensor
        elif self._first is None:
            self._first = (name, tensor)
            yield _SHARED, tensor
        elif not torch.equal(tensor, self._first[1]):
            raise ConfigError(
                f"{self._config.file.parent}: tensors '{self._first[0]}' and '{name}' differ, but "
                f"tie_word_embeddings in {self._config.file.name} says that they are one. One of "
                "the two is wrong: ask its publisher."
            )


def _shapes(config: Settings) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors but embeddings and head."""
    hidden, inner = config.integer("d_model"), config.integer("num_heads") * config.integer("d_kv")
    num_layers = config.integer("num_layers")
    buckets = config.get("relative_attention_num_buckets", _NUM_BUCKETS)
    attention = {**dict.fromkeys("qkv", (inner, hidden)), "o": (hidden, inner)}
    gated = config.get("feed_forward_proj", "relu").startswith("gated")
    widths = dict.fromkeys(("wi_0", "wi_1") if gated else ("wi",), (config.integer("d_ff"), hidden))
    feed_forward = {**widths, "wo": (hidden, config.integer("d_ff"))}
    stacks = {
        "encoder": (num_layers, ("SelfAttention",)),
        "decoder": (
            config.get("num_decoder_layers", num_layers),
            ("SelfAttention", "EncDecAttention"),
        ),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for stack, (number, attentions) in stacks.items():
        shapes[f"{stack}.final_layer_norm.weight"] = (hidden,)
        shapes[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
            buckets,
            config.integer("num_heads"),
        )
        layers = [(name, attention) for name in attentions] + [("DenseReluDense", feed_forward)]
        for block in range(number):
            for place, (module, weights) in enumerate(layers):
                prefix = f"{stack}.block.{block}.layer.{place}"
                shapes[f"{prefix}.layer_norm.weight"] = (hidden,)
                shapes |= {f"{prefix}.{module}.{name}.weight": s for name, s in weights.items()}
    return shapes
