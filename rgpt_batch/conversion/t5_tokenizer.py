"""The tokenizer of a T5: made from its spiece.model, which often is all that was published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rgpt_batch.conversion.sentencepiece_unigram import (
    END,
    PAD,
    UNK,
    convert_unigram,
    read_unigram,
)
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.conversion.tokenizers import (
    ADDED,
    CONFIG,
    SPECIALS,
    SPIECE,
    TOKENIZER_JSON,
    NewTokenizer,
    described_tokens,
    max_length,
    set_template,
)
from rgpt_batch.errors import ConfigError

# What T5Tokenizer adds where tokenizer_config.json does not say otherwise.
_NUM_EXTRA_IDS = 100


def from_spiece(folder: Path) -> NewTokenizer:
    """Make a tokenizer.json from a T5's spiece.model; there may be no tokenizer_config.json.

    Raises:
        ConfigError: The file is damaged or of an unknown kind, or other files name other tokens.
    """
    file = folder / SPIECE
    config = Settings(folder / CONFIG) if (folder / CONFIG).is_file() else None
    if config is None and (folder / ADDED).is_file():
        raise ConfigError(f"{folder}: holds {ADDED}, but no {CONFIG}. Download it.")
    num_extra_ids = config.get("extra_ids", _NUM_EXTRA_IDS) if config else _NUM_EXTRA_IDS
    tokenizer = convert_unigram(read_unigram(file), num_extra_ids, file)
    set_template(tokenizer, bos=None, eos=END)
    if config is not None:
        _check(folder, config, tokenizer)
    return NewTokenizer(
        tokenizer,
        {
            # T5Tokenizer would split texts in its own way.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "unk_token": UNK,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            **(max_length(config) if config else {}),
        },
        f"{SPIECE} to {TOKENIZER_JSON}: {num_extra_ids} <extra_id_…> behind the model's pieces, "
        "special tokens matched in texts",
        frozenset({SPIECE, TOKENIZER_JSON, CONFIG, SPECIALS, ADDED}),
    )


def _check(folder: Path, config: Settings, tokenizer: Any) -> None:
    config.require("tokenizer_class", None, "T5Tokenizer", "T5TokenizerFast")
    config.require("sp_model_kwargs", {})
    for token, settings in described_tokens(folder, config):
        number = tokenizer.token_to_id(token)
        if number is None or settings.get("id", number) != number:
            raise ConfigError(
                f"{folder}: names the token '{token}' with id {settings.get('id', '(none)')}, but "
                f"{SPIECE} and its extra ids give it {number or 'none'}. They do not belong "
                "together."
            )
