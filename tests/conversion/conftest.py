"""Checkpoints and tokenizer files, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conversion.checkpoints import (
    BAICHUAN,
    QWEN,
    baichuan_tensors,
    qwen_tensors,
    save,
)
from tests.conversion.vocabularies import (
    BAICHUAN_TOKENIZER,
    save_baichuan_model,
    save_llama_model,
    save_t5_model,
    save_tiktoken,
    write_json,
)


@pytest.fixture(scope="session")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of baichuan.model, llama.model, t5.model (1,000 pieces) and qwen.tiktoken (556)."""
    folder = tmp_path_factory.mktemp("tokenizers")
    save_baichuan_model(folder / "baichuan.model", vocab_size=1000)
    save_llama_model(folder / "llama.model", vocab_size=1000)
    save_t5_model(folder / "t5.model", vocab_size=1000)
    save_tiktoken(folder / "qwen.tiktoken", num_merges=300)
    return folder


@pytest.fixture
def baichuan(tmp_path: Path, tokenizer_files: Path) -> Path:
    """Folder of a Baichuan2 in float32, as it is published: shards, index, tokenizer, code."""
    folder = save(tmp_path / "baichuan", BAICHUAN, baichuan_tensors(BAICHUAN))
    (folder / "tokenizer.model").write_bytes((tokenizer_files / "baichuan.model").read_bytes())
    write_json(folder / "tokenizer_config.json", BAICHUAN_TOKENIZER)
    write_json(folder / "special_tokens_map.json", {"bos_token": "<s>", "pad_token": "<unk>"})
    write_json(folder / "generation_config.json", {"do_sample": False})
    (folder / "modeling_baichuan.py").write_text("raise SystemExit('code of the model was run')\n")
    (folder / "README.md").write_text("About the model.\n")
    return folder


@pytest.fixture
def qwen(tmp_path: Path, tokenizer_files: Path) -> Path:
    """Folder of a first Qwen in float32, as it is published."""
    folder = save(tmp_path / "qwen", QWEN, qwen_tensors(QWEN))
    (folder / "qwen.tiktoken").write_bytes((tokenizer_files / "qwen.tiktoken").read_bytes())
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer"})
    write_json(folder / "special_tokens_map.json", {"pad_token": "<|endoftext|>"})
    (folder / "modeling_qwen.py").write_text("raise SystemExit('code of the model was run')\n")
    return folder
