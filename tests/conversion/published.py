"""Small random models, each in a folder as it is published: weights, config and tokenizer files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conversion.checkpoints import (
    ADAPTER,
    BAICHUAN,
    BERT,
    LLAMA,
    QWEN,
    Tensors,
    adapter_tensors,
    baichuan_tensors,
    bert_tensors,
    llama_tensors,
    qwen_tensors,
    save,
    save_adapter,
    t5_tensors,
)
from tests.conversion.vocabularies import (
    BAICHUAN_TOKENIZER,
    LLAMA_TOKENIZER,
    save_baichuan_model,
    save_llama_model,
    save_t5_model,
    save_tiktoken,
    save_word_pieces,
    write_json,
)

_WAS_RUN = "raise SystemExit('code of the model was run')\n"


def save_baichuan(folder: Path, tokenizer: Path | None = None) -> Tensors:
    """Write a Baichuan2 in float32: shards, index, tokenizer, code.

    Args:
        folder: Where to.
        tokenizer: A tokenizer.model that is there already.
    """
    tensors = baichuan_tensors(BAICHUAN)
    save(folder, BAICHUAN, tensors)
    if tokenizer is None:
        save_baichuan_model(folder / "tokenizer.model", vocab_size=BAICHUAN["vocab_size"])
    else:
        (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    write_json(folder / "tokenizer_config.json", BAICHUAN_TOKENIZER)
    write_json(folder / "special_tokens_map.json", {"bos_token": "<s>", "pad_token": "<unk>"})
    write_json(folder / "generation_config.json", {"do_sample": False})
    (folder / "modeling_baichuan.py").write_text(_WAS_RUN)
    (folder / "README.md").write_text("About the model.\n")
    return tensors


def save_qwen(folder: Path, tokenizer: Path | None = None) -> Tensors:
    """Write a first Qwen in float32.

    Args:
        folder: Where to.
        tokenizer: A qwen.tiktoken that is there already.
    """
    tensors = qwen_tensors(QWEN)
    save(folder, QWEN, tensors)
    if tokenizer is None:
        save_tiktoken(folder / "qwen.tiktoken", num_merges=300)
    else:
        (folder / "qwen.tiktoken").write_bytes(tokenizer.read_bytes())
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer"})
    write_json(folder / "special_tokens_map.json", {"pad_token": "<|endoftext|>"})
    (folder / "modeling_qwen.py").write_text(_WAS_RUN)
    return tensors


def save_llama(folder: Path) -> Tensors:
    """Write a Llama 2 that has a tokenizer.model alone."""
    tensors = llama_tensors(LLAMA)
    save(folder, LLAMA, tensors)
    save_llama_model(folder / "tokenizer.model", vocab_size=LLAMA["vocab_size"])
    write_json(folder / "tokenizer_config.json", LLAMA_TOKENIZER)
    return tensors


def save_rankllama(folder: Path, base: Path) -> tuple[Tensors, Tensors]:
    """Write an adapter and its Llama 2; return the tensors of the base, then the adapter's."""
    tensors = save_llama(base)
    factors = adapter_tensors(ADAPTER, tensors)
    save_adapter(folder, ADAPTER, factors)
    return tensors, factors


def save_monobert(folder: Path) -> Tensors:
    """Write a BERT with two labels, Google's bare config and a pickle of 2020."""
    config = {**BERT, "vocab_size": 1000}
    tensors = bert_tensors(config, num_labels=2, old_names=False)
    save(folder, config, tensors, num_shards=1, legacy=True)
    save_word_pieces(folder / "vocab.txt", vocab_size=1000)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "max_len": 512})
    return tensors


def save_t5(folder: Path, config: dict[str, Any]) -> Tensors:
    """Write a T5 as a pickle of 2020 with a spiece.model of 1,000 pieces."""
    tensors = t5_tensors(config)
    save(folder, config, tensors, num_shards=1, legacy=True)
    save_t5_model(folder / "spiece.model", vocab_size=1000)
    return tensors
