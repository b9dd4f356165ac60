"""Tokenizer files that this conversion does not know, or that are damaged, are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.conversion.sentencepiece_bpe import read_model
from rgpt_batch.conversion.tiktoken_bpe import convert_ranks
from rgpt_batch.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainer_spec": {"model_type": 1}}, "no BPE model"),
        ({"normalizer_spec": {"remove_extra_whitespaces": True}}, "removes repeated blanks"),
        ({"normalizer_spec": {"precompiled_charsmap": b"x"}}, "normalises characters"),
        ({"normalizer_spec": {"escape_whitespaces": False}}, "does not keep blanks"),
        ({"trainer_spec": {"treat_whitespace_as_suffix": True}}, "blanks at the end of words"),
    ],
)
def test_models_with_other_rules_are_refused(
    tmp_path: Path, tokenizer_files: Path, changes: dict[str, dict[str, Any]], said: str
) -> None:
    model = read_model(tokenizer_files / "llama.model")
    for section, settings in changes.items():
        for name, value in settings.items():
            setattr(getattr(model, section), name, value)
    file = tmp_path / "tokenizer.model"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigError, match=said):
        read_model(file)


def test_damaged_tokenizer_files_are_refused_by_name(tmp_path: Path, tokenizer_files: Path) -> None:
    file = tmp_path / "tokenizer.model"
    for content in (
        b"",
        b"no protocol buffer",
        (tokenizer_files / "llama.model").read_bytes()[:-7],
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=re.escape(str(file))):
            read_model(file)
    ranks = tmp_path / "qwen.tiktoken"
    lines = (tokenizer_files / "qwen.tiktoken").read_text().splitlines()
    for wrong in (lines[:100], lines[:-2] + lines[-1:], [*lines, "!!! 556"], [*lines, "YWJjZGVm"]):
        ranks.write_text("\n".join(wrong))
        with pytest.raises(ConfigError, match=re.escape(str(ranks))):
            convert_ranks(ranks)


def test_a_token_that_no_merge_leads_to_is_refused(tmp_path: Path, tokenizer_files: Path) -> None:
    file = tmp_path / "qwen.tiktoken"
    text = (tokenizer_files / "qwen.tiktoken").read_text()
    file.write_text(text + "AAECAwQFBgc= 556\n")
    with pytest.raises(ConfigError, match="rank 556 is no merge"):
        convert_ranks(file)
