"""Converted tokenizers give the published ones' ids: 0 differences on 10,000 odd strings each.

Against the published libraries, SentencePiece and tiktoken. Twice: with small files made here, and
with real ones where RGPT_TOKENIZERS names a folder of llama2/tokenizer.model, qwen/qwen.tiktoken.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from transformers import AutoTokenizer

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.conversion.convert import convert
from rgpt_batch.conversion.sentencepiece_bpe import convert_model, read_model
from rgpt_batch.conversion.tiktoken_bpe import convert_ranks
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.tokenizer import load_tokenizer
from tests.conversion.checkpoints import LLAMA, QWEN, llama_tensors, qwen_tensors, save
from tests.conversion.texts import varied_texts
from tests.conversion.vocabularies import (
    LLAMA_TOKENIZER,
    QWEN_PATTERN,
    QWEN_SPECIALS,
    SPECIALS,
    read_tiktoken,
    write_json,
)

NUM_TEXTS = 10_000
REAL = Path(os.environ.get("RGPT_TOKENIZERS", "tokenizers-not-named"))

Encode = Callable[[str], list[int]]


def _differences(found: Any, encode: Encode, specials: Sequence[str]) -> list[str]:
    texts = varied_texts(NUM_TEXTS, tuple(specials))
    encodings = found.encode_batch(texts, add_special_tokens=False)
    return [
        text
        for text, encoding in zip(texts, encodings, strict=True)
        if encoding.ids != encode(text)
    ]


def _sentencepiece(file: Path, specials: Sequence[str] = SPECIALS) -> Encode:
    """What slow tokenizers do: find special tokens in the text, encode what is between them."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    split = re.compile("(" + "|".join(map(re.escape, specials)) + ")")

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for part in filter(None, split.split(text)):
            if part in specials:
                ids.append(processor.piece_to_id(part))
            else:
                ids += processor.encode(part)
        return ids

    return encode


def _tiktoken(file: Path) -> Encode:
    """What Qwen's tokenizer does: compose characters, then tiktoken with all special tokens."""
    ranks = read_tiktoken(file)
    encoding = tiktoken.Encoding(
        "Qwen",
        pat_str=QWEN_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={token: len(ranks) + i for i, token in enumerate(QWEN_SPECIALS)},
    )
    return lambda text: encoding.encode(
        unicodedata.normalize("NFC", text), allowed_special="all", disallowed_special=()
    )


def _real(name: str) -> Path:
    if not (REAL / name).is_file():
        pytest.skip(f"RGPT_TOKENIZERS names no folder with {name}; a small file is tested instead")
    return REAL / name


def _save_llama(folder: Path, model: Path, *, vocab_size: int = 1000, **settings: Any) -> Path:
    config = LLAMA | _NARROW | {"vocab_size": vocab_size}
    save(folder, config, llama_tensors(config))
    shutil.copyfile(model, folder / "tokenizer.model")
    write_json(folder / "tokenizer_config.json", LLAMA_TOKENIZER | settings)
    return folder


# The real vocabularies have many rows.
_NARROW = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


def test_converted_baichuan_tokenizer_gives_sentencepieces_ids(
    baichuan: Path, tmp_path: Path
) -> None:
    convert(baichuan, tmp_path / "llama")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llama")
    expected = _sentencepiece(baichuan / "tokenizer.model")
    assert _differences(tokenizer.backend_tokenizer, expected, SPECIALS) == []
    # No BOS, no dummy prefix: a word at the beginning is another token than after a blank.
    assert tokenizer("walk").input_ids == expected("walk") != expected(" walk")
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<unk>", 0)


@pytest.mark.parametrize("size", ["small", "real"])
def test_converted_llama_tokenizer_gives_sentencepieces_ids(
    tmp_path: Path, tokenizer_files: Path, size: str
) -> None:
    if size == "small":
        model = tokenizer_files / "llama.model"
        source = _save_llama(tmp_path / "llama", model)
    else:
        model = _real("llama2/tokenizer.model")
        source = _save_llama(tmp_path / "llama", model, vocab_size=32000)
    convert(source, tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    expected = _sentencepiece(model)
    assert _differences(tokenizer.backend_tokenizer, expected, SPECIALS) == []
    assert tokenizer("walk").input_ids == [1, *expected("walk")]
    assert tokenizer("a", "b").input_ids == [1, *expected("a"), 1, *expected("b")]
    assert tokenizer.decode(tokenizer(" two  blanks").input_ids, skip_special_tokens=True) == (
        " two  blanks"
    )


def test_a_model_whose_ties_no_list_of_merges_can_order_is_refused(tokenizer_files: Path) -> None:
    file = tokenizer_files / "llama.model"
    model = read_model(file)
    blanks = [piece for piece in model.pieces if set(piece.piece) == {"▁"} and len(piece.piece) > 1]
    for piece, length in zip(blanks, (3, 2, *range(4, 17)), strict=True):
        piece.piece = "▁" * length
    with pytest.raises(ConfigError, match="This model cannot be converted"):
        convert_model(model, file)


def test_merges_ordered_by_id_would_be_seen(tokenizer_files: Path) -> None:
    # A model whose scores follow its ids: what the others' conversion takes every model for.
    file = tokenizer_files / "llama.model"
    model = read_model(file)
    for number, piece in enumerate(model.pieces):
        piece.score = -number
    assert len(_differences(convert_model(model, file), _sentencepiece(file), ())) > 100


@pytest.mark.parametrize("size", ["small", "real"])
def test_converted_qwen_tokenizer_gives_tiktokens_ids(
    qwen: Path, tmp_path: Path, size: str
) -> None:
    if size == "real":
        shutil.copyfile(_real("qwen/qwen.tiktoken"), qwen / "qwen.tiktoken")
        config = QWEN | _NARROW | {"kv_channels": 8, "vocab_size": 151_936}
        save(qwen, config, qwen_tensors(config))
    convert(qwen, tmp_path / "qwen2")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "qwen2")
    expected = _tiktoken(qwen / "qwen.tiktoken")
    assert _differences(tokenizer.backend_tokenizer, expected, QWEN_SPECIALS) == []
    assert tokenizer("walk").input_ids == expected("walk")
    assert tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"


def test_specials_before_combining_characters_are_found_by_the_file_itself(
    tokenizer_files: Path,
) -> None:
    # transformers' Qwen2Tokenizer is the one that loses them.
    file = tokenizer_files / "qwen.tiktoken"
    text = "<|endoftext|>\u0338 and <|im_end|>e\u0301"
    assert convert_ranks(file).encode(text).ids == _tiktoken(file)(text)


def test_special_tokens_are_those_that_the_files_name(
    tmp_path: Path, tokenizer_files: Path
) -> None:
    # As fine-tuning left them: one token for three purposes, and a new one for padding.
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>")
    folder = _save_llama(
        tmp_path / "llama", tokenizer_files / "llama.model", vocab_size=1001, **names
    )
    write_json(folder / "special_tokens_map.json", names | {"pad_token": "[PAD]"})
    write_json(folder / "added_tokens.json", {"[PAD]": 1000})
    convert(folder, tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    expected = _sentencepiece(folder / "tokenizer.model", ["</s>"])
    assert tokenizer("walk").input_ids == [2, *expected("walk")]
    assert tokenizer.pad_token_id == 1000
    assert tokenizer("a[PAD]b").input_ids == [2, *expected("a"), 1000, *expected("b")]
    # `<s>` is no special token any more.
    assert tokenizer("a <s> b").input_ids == [2, *expected("a <s> b")]
    assert 1 not in tokenizer("a <s> b").input_ids


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("special_tokens_map.json", {"bos_token": "</s>"}, "bos_token is '</s>', but .* '<s>'"),
        ("special_tokens_map.json", {"pad_token": "[PAD]"}, r"'\[PAD\]', which neither"),
        ("added_tokens.json", {"[PAD]": 1001}, r"'\[PAD\]' should have id 1001, but gets 1000"),
        ("added_tokens.json", {"walk": 7}, "'walk' should have id 7, but gets"),
        ("added_tokens.json", {"[PAD]": "1000"}, r"'\[PAD\]' is '1000', expected a positive"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    tmp_path: Path, tokenizer_files: Path, name: str, content: dict[str, Any], said: str
) -> None:
    folder = _save_llama(tmp_path / "llama", tokenizer_files / "llama.model")
    write_json(folder / name, content)
    with pytest.raises(ConfigError, match=said):
        convert(folder, tmp_path / "converted")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"added_tokens_decoder": ["<s>"]}, "'added_tokens_decoder' lists no tokens"),
        ({"added_tokens_decoder": {"one": {"content": "<s>"}}}, "lists no tokens"),
        ({"added_tokens_decoder": {"2": {"content": "<s>"}}}, "'<s>' should have id 2, but gets 1"),
        ({"additional_special_tokens": ["<sep>"]}, "names the token '<sep>', which neither"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "'sp_model_kwargs'"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    tmp_path: Path, tokenizer_files: Path, settings: dict[str, Any], said: str
) -> None:
    folder = _save_llama(tmp_path / "llama", tokenizer_files / "llama.model", **settings)
    with pytest.raises(ConfigError, match=said):
        convert(folder, tmp_path / "converted")


def test_added_tokens_keep_their_flags(tmp_path: Path, tokenizer_files: Path) -> None:
    # As transformers from 4.34 on saves them.
    decoder = {
        "2": {"content": "</s>", "special": True, "rstrip": True},
        "1000": {"content": "<cut>", "special": False, "lstrip": True},
    }
    folder = _save_llama(
        tmp_path / "llama",
        tokenizer_files / "llama.model",
        vocab_size=1001,
        added_tokens_decoder=decoder,
    )
    convert(folder, tmp_path / "converted")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "converted")
    expected = _sentencepiece(folder / "tokenizer.model", ["</s>"])
    found = tokenizer("a </s>  b  <cut> c", add_special_tokens=False).input_ids
    assert found == [*expected("a "), 2, *expected("b"), 1000, *expected(" c")]


def test_tokenizer_with_more_tokens_than_the_model_is_refused(
    tmp_path: Path, tokenizer_files: Path
) -> None:
    folder = _save_llama(tmp_path / "llama", tokenizer_files / "llama.model", vocab_size=999)
    with pytest.raises(ConfigError, match="has 1,000 tokens, but the model only 999"):
        convert(folder, tmp_path / "converted")


def test_nothing_is_assumed_where_it_is_not_said_whether_bos_is_added(
    tmp_path: Path, tokenizer_files: Path
) -> None:
    folder = _save_llama(tmp_path / "llama", tokenizer_files / "llama.model")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"})
    with pytest.raises(ConfigError, match="'tokenizer_class' is 'GemmaTokenizer', expected one"):
        convert(folder, tmp_path / "converted")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer_config\.json, which says whether .* BOS"):
        convert(folder, tmp_path / "converted")


@pytest.mark.parametrize("num_tokens", [3, 40])
def test_cut_ids_are_decoded_as_sentencepiece_does(
    baichuan: Path, tmp_path: Path, num_tokens: int
) -> None:
    # eval.py cuts documents so. Costs 5 s.
    convert(baichuan, tmp_path / "llama")
    tokenizer = load_tokenizer(ModelConfig(name=str(tmp_path / "llama")))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(baichuan / "tokenizer.model"))
    texts = [text for text in varied_texts(3_000, ()) if "<0x" not in text]
    cut = [processor.encode(text)[:num_tokens] for text in texts]
    expected = [processor.decode(ids) for ids in cut]
    found = [tokenizer.decode(ids) for ids in cut]
    assert [text for text, other in zip(found, expected, strict=True) if text != other] == []
    # The control: the library's own way differs.
    assert [tokenizer.backend_tokenizer.decode(ids) for ids in cut] != expected
