"""Small random models and a small tokenizer, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parent.parent / "demo" / "source.jsonl"
VOCAB_SIZE = 1024


def demo_texts() -> Iterator[str]:
    """Every query and document of the demo."""
    for line in DEMO.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        yield record["query"]
        yield from (candidate["document"] for candidate in record["candidates"])


def save_tiny_tokenizer(folder: Path) -> Path:
    """Train a byte-level BPE tokenizer with an optional BOS token, as Llama's and Bloom's have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(demo_texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    return folder


def save_tiny_llama(folder: Path, **settings: Any) -> Path:
    """Save a random two-layer Llama in float32, with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.3,
        tie_word_embeddings=False,
        **settings,
    )
    LlamaForCausalLM(config).to(torch.float32).save_pretrained(folder)
    return save_tiny_tokenizer(folder)


def save_tiny_bloom(folder: Path, *, own_head: bool) -> Path:
    """Save a random two-layer Bloom in float32, with its tokenizer.

    Args:
        folder: Where to.
        own_head: Store an `lm_head.weight` that differs from the embeddings.
    """
    import torch
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(1)
    config = BloomConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        tie_word_embeddings=not own_head,
    )
    model = BloomForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    return save_tiny_tokenizer(folder)


def set_config(folder: Path, **settings: object) -> None:
    """Change settings in a model's config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def fill_head(model: Path, value: float) -> None:
    """Give all weights of a tiny Llama's head one value, which spoils every score."""
    import torch
    from safetensors.torch import load_file, save_file

    file = model / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = torch.full_like(tensors["lm_head.weight"], value)
    save_file(tensors, file, metadata={"format": "pt"})
