"""Checkpoints and tokenizer files, made once."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.conftest import RunCli
from tests.conversion.published import save_baichuan, save_qwen
from tests.conversion.vocabularies import (
    save_baichuan_model,
    save_llama_model,
    save_t5_model,
    save_tiktoken,
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
    """Folder of a Baichuan2 as it is published."""
    save_baichuan(tmp_path / "baichuan", tokenizer_files / "baichuan.model")
    return tmp_path / "baichuan"


@pytest.fixture
def qwen(tmp_path: Path, tokenizer_files: Path) -> Path:
    """Folder of a first Qwen as it is published."""
    save_qwen(tmp_path / "qwen", tokenizer_files / "qwen.tiktoken")
    return tmp_path / "qwen"


@pytest.fixture
def run_cli(run_cli: RunCli) -> RunCli:
    """Run `rgpt-batch` with torch."""
    return partial(run_cli, without_torch=False)
