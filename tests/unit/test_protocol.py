"""How a pair becomes a prompt, case by case. For any text at all see tests/property."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.config import ModelConfig, ProtocolConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.protocol import load_protocol, load_tokenizer
from rgpt_batch.records import Rejection, RejectionReason, ScorePair, TokenizedPair

QUERY = "when should a baby walk"
DOCUMENT = "most children take their first steps at about twelve months of age"


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer: Path) -> Any:
    return load_tokenizer(ModelConfig(name=str(tiny_tokenizer)))


def _tokenize(
    folder: Path, query: str, document: str, **settings: Any
) -> TokenizedPair | Rejection:
    protocol = load_protocol(ProtocolConfig(**settings), ModelConfig(name=str(folder)))
    return protocol.tokenize([ScorePair(query=query, document=document)])[0]


def _prompt(folder: Path, query: str, document: str, **settings: Any) -> TokenizedPair:
    pair = _tokenize(folder, query, document, **settings)
    assert isinstance(pair, TokenizedPair), pair
    return pair


# card


def test_card_prompt_is_context_then_query_without_special_tokens(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT)
    context = tokenizer.encode(f"Document: {DOCUMENT} Query:", add_special_tokens=False)
    query = tokenizer.encode(QUERY, add_special_tokens=False)
    assert pair.token_ids.tolist() == context + query
    assert pair.token_ids.dtype == "int32"
    assert pair.query_start == len(context)
    assert tokenizer.bos_token_id not in pair.token_ids
    num_template = len(tokenizer.encode("Document: Query:", add_special_tokens=False))
    assert pair.num_document_tokens == len(context) - num_template


def test_card_cuts_the_documents_end_to_the_limit(tiny_tokenizer: Path, tokenizer: Any) -> None:
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT * 50, max_length=40)
    assert len(pair.token_ids) == 40
    text = tokenizer.decode(pair.token_ids.tolist())
    assert text.startswith("Document: most children")
    assert text.endswith(f" Query:{QUERY}")
    whole = _prompt(tiny_tokenizer, QUERY, DOCUMENT * 50)
    assert pair.num_dropped_document_tokens == len(whole.token_ids) - 40


def test_card_can_cut_the_whole_document_but_nothing_else(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    whole = _prompt(tiny_tokenizer, QUERY, DOCUMENT)
    limit = len(whole.token_ids) - whole.num_document_tokens
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT, max_length=limit)
    assert tokenizer.decode(pair.token_ids.tolist()) == f"Document: Query:{QUERY}"
    assert pair.num_document_tokens == 0
    too_short = _tokenize(tiny_tokenizer, QUERY, DOCUMENT, max_length=limit - 1)
    assert too_short == Rejection(reason=RejectionReason.QUERY_TOO_LONG)


@pytest.mark.parametrize("template", ["{document}{query}", "{document} {query}"])
def test_card_without_any_context_is_rejected(tiny_tokenizer: Path, template: str) -> None:
    pair = _tokenize(tiny_tokenizer, QUERY, "", template=template.replace(" ", ""))
    assert pair == Rejection(reason=RejectionReason.NO_CONTEXT)
    assert _prompt(tiny_tokenizer, QUERY, "", template="{document}:{query}").query_start == 1


def test_card_takes_braces_and_special_tokens_in_texts_as_they_are(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    pair = _prompt(tiny_tokenizer, "{document}", "{query} </s> [PAD]")
    text = tokenizer.decode(pair.token_ids.tolist())
    assert text == "Document: {query} </s> [PAD] Query:{document}"


def test_card_ignores_truncation_and_padding_stored_with_the_tokenizer(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["truncation"] = {
        "direction": "Right",
        "max_length": 8,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    stored["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 2,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    for name in ("card", "eval"):
        expected = _prompt(tiny_tokenizer, QUERY, DOCUMENT, name=name)
        found = _prompt(folder, QUERY, DOCUMENT, name=name)
        assert found.token_ids.tolist() == expected.token_ids.tolist()


# eval


def _eval_py(tokenizer: Any, query: str, document: str, *, arguana: bool) -> tuple[list[int], int]:
    """What eval.py feeds and where its query starts, in its own words."""

    def get_num_token(text: str) -> int:
        return len(tokenizer.encode(text))

    def truncation(text: str, length: int) -> str:
        ids = tokenizer.encode(text, max_length=length, truncation=True, add_special_tokens=False)
        decoded: str = tokenizer.decode(ids)
        return decoded

    prompt = "Document: {doc} Query:"
    prompt_len = get_num_token(prompt)
    if not arguana:
        query = query.replace("[PAD]", "PAD")
        passage_max_len = 512 - prompt_len - get_num_token(query) - 10
        source = prompt.format(doc=truncation(document, passage_max_len)).replace("[PAD]", "PAD")
    else:
        source = prompt.format(doc=truncation(document, 256)).replace("[PAD]", "PAD")
        query = truncation(query, 256)
    return tokenizer.encode(source + query), get_num_token(source)


@pytest.mark.parametrize("arguana", [False, True])
@pytest.mark.parametrize(
    ("query", "document"),
    [
        (QUERY, DOCUMENT),
        (QUERY, DOCUMENT * 100),
        (QUERY * 20, DOCUMENT * 100),
        (f"[PAD] {QUERY}", f"a [PAD] b {DOCUMENT}"),
        (QUERY, ""),
        (f" {QUERY} ", f"  {DOCUMENT}  "),
        ("größer 東京 👩‍👩‍👧", "👩‍👩‍👧" * 300),
    ],
)
def test_eval_prompt_is_that_of_eval_py(
    tiny_tokenizer: Path, tokenizer: Any, query: str, document: str, arguana: bool
) -> None:
    token_ids, query_start = _eval_py(tokenizer, query, document, arguana=arguana)
    pair = _prompt(tiny_tokenizer, query, document, name="eval-arguana" if arguana else "eval")
    assert pair.token_ids.tolist() == token_ids
    assert pair.query_start == query_start
    assert pair.token_ids[0] == tokenizer.bos_token_id


def test_eval_keeps_at_most_512_tokens_and_counts_the_rest(
    tiny_tokenizer: Path, tokenizer: Any
) -> None:
    pair = _prompt(tiny_tokenizer, QUERY, DOCUMENT * 100, name="eval")
    assert 490 < len(pair.token_ids) <= 512
    num_tokens = len(tokenizer.encode(DOCUMENT * 100, add_special_tokens=False))
    assert pair.num_document_tokens + pair.num_dropped_document_tokens == num_tokens


def test_eval_rejects_a_query_that_leaves_no_room_for_a_document(tiny_tokenizer: Path) -> None:
    pair = _tokenize(tiny_tokenizer, QUERY * 100, DOCUMENT, name="eval")
    assert pair == Rejection(reason=RejectionReason.QUERY_TOO_LONG)
    arguana = _prompt(tiny_tokenizer, QUERY * 100, DOCUMENT, name="eval-arguana")
    assert arguana.num_query_tokens in range(250, 260)


@pytest.mark.parametrize("name", ["card", "eval", "eval-arguana"])
@pytest.mark.parametrize("query", ["", "   ", "\n\t", "\u00a0\u3000"])
def test_blank_query_is_rejected_by_every_protocol(
    tiny_tokenizer: Path, name: str, query: str
) -> None:
    pair = _tokenize(tiny_tokenizer, query, DOCUMENT, name=name)
    assert pair == Rejection(reason=RejectionReason.EMPTY_QUERY)


# Loading


def test_missing_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"cannot load the tokenizer of '{tmp_path}'"):
        load_tokenizer(ModelConfig(name=str(tmp_path)))


@pytest.mark.parametrize("content", ["", "{", '{"model": {"type": "Magic"}}'])
def test_damaged_tokenizer_is_refused_by_name(
    tiny_tokenizer: Path, tmp_path: Path, content: str
) -> None:
    folder = shutil.copytree(tiny_tokenizer, tmp_path / "tokenizer")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"cannot load the tokenizer of .* Check model\.name"):
        load_tokenizer(ModelConfig(name=str(folder)))
