"""Models of the published sizes with random weights, and what one score costs in FLOPs."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rgpt_batch.errors import ConfigError

_ARCHITECTURES = {
    "bloom": "BloomForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
_NUM_WORDS = 10_000
TOKENIZER = "tokenizer"
# With 0.02, the usual range, narrow models take all tokens to be about equally likely.
_TINY_WEIGHT_RANGE = 0.06
# Of biases, and of norms around 1. Freshly made they are 0 and 1, so that a model that mixes them
# up scores the same.
_SMALL_TENSOR_RANGE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The numbers that decide how fast a decoder can be.

    Attributes:
        ffn_size: Width of the feed-forward layer.
        num_ffn_matrices: 2 with GELU (Bloom), 3 with a gate (Llama, Qwen2).
        weight_range: Standard deviation of random weights.
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
    weight_range: float = 0.02

    def scaled_down(self) -> ModelShape:
        """Return the same architecture in a size that any machine computes in no time.

        Attention's kernels stay what they are: heads keep their size, and shared keys stay shared.
        """
        num_heads = 4
        hidden_size = num_heads * self.hidden_size // self.num_heads
        return dataclasses.replace(
            self,
            name=f"{self.name}-tiny",
            hidden_size=hidden_size,
            num_layers=2,
            num_heads=num_heads,
            num_kv_heads=num_heads if self.num_kv_heads == self.num_heads else num_heads // 2,
            vocab_size=1024,
            ffn_size=4 * hidden_size,
            weight_range=_TINY_WEIGHT_RANGE,
        )

    @property
    def num_bytes(self) -> int:
        """About the size of the weights in bfloat16: layers, embeddings and head."""
        return 2 * (self.num_layer_parameters + 2 * self.vocab_size * self.hidden_size)

    @property
    def num_layer_parameters(self) -> int:
        """Weights of all layers' matrices, embeddings left out."""
        kv_size = self.hidden_size * self.num_kv_heads // self.num_heads
        attention = 2 * self.hidden_size * (self.hidden_size + kv_size)
        return self.num_layers * (attention + self.num_ffn_parameters)

    @property
    def num_ffn_parameters(self) -> int:
        """Weights of one layer's feed-forward matrices."""
        return self.num_ffn_matrices * self.hidden_size * self.ffn_size

    def flops_per_score(self, num_tokens: int, num_query_tokens: int) -> float:
        """FLOPs that a score needs: the body for every token, the head for the query's rows.

        The last feed-forward layer belongs to the head. Attention is causal: query t meets t + 1
        keys. Nothing is shared between pairs.
        """
        body = 2.0 * (self.num_layer_parameters - self.num_ffn_parameters) * num_tokens
        attention = 2.0 * self.num_layers * self.hidden_size * num_tokens * (num_tokens + 1)
        head = 2.0 * (self.num_ffn_parameters + self.vocab_size * self.hidden_size)
        return body + attention + head * num_query_tokens


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


def find_shape(name: str) -> ModelShape:
    """Look a shape up; `-tiny` at the end of a name scales it down.

    Raises:
        ConfigError: There is none of this name.
    """
    full_name = name.removesuffix("-tiny")
    if full_name not in SHAPES:
        raise ConfigError(f"no shape is called {name!r}; there are {', '.join(SHAPES)}.")
    shape = SHAPES[full_name]
    return shape if name == full_name else shape.scaled_down()


def save_random_model(shape: ModelShape, folder: Path, *, weights: bool) -> Path:
    """Write a checkpoint of this shape and, in TOKENIZER below it, a tokenizer, once.

    Args:
        shape: Which sizes.
        folder: Where to; complete if it has a config.json.
        weights: Random bfloat16 weights; without them vLLM has to make some up
            (load_format=dummy), which spares the disk.
    """
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_heads,
        "initializer_range": shape.weight_range,
        "dtype": "bfloat16",
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
    config = AutoConfig.for_model(shape.model_type, **settings)
    config.architectures = [_ARCHITECTURES[shape.model_type]]
    staged = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    # A folder of its own: beside the config of a Qwen2 it would be loaded as a Qwen2Tokenizer.
    _save_word_tokenizer(staged / TOKENIZER, min(shape.vocab_size, _NUM_WORDS))
    if weights:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        for tensor in model.state_dict().values():
            if tensor.ndim == 1:
                tensor.add_(torch.randn_like(tensor) * _SMALL_TENSOR_RANGE)
        model.save_pretrained(staged)
    config.save_pretrained(staged)
    staged.rename(folder)
    return folder


def _save_word_tokenizer(folder: Path, num_words: int) -> None:
    """Save a tokenizer to which every word is one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase
    words = ("".join(each) for each in itertools.product(letters, repeat=3))
    vocabulary = {"<unk>": 0, "Document": 1, "Query": 2, ":": 3}
    for word in itertools.islice(words, num_words - len(vocabulary)):
        vocabulary[word] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
