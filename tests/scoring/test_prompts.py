"""Prompts in parts: against the tokenizers' own ways of joining texts, and case by case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from rgpt_batch.config.load import load_config
from rgpt_batch.config.options import ModelConfig
from rgpt_batch.config.prompts import ProtocolConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.records import (
    LabelPrompt,
    PreparedPair,
    Rejection,
    RejectionReason,
    ReusedScore,
    Score,
    ScorePair,
)
from rgpt_batch.scoring.prompts import PromptProtocol
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.tokenizer import load_tokenizer
from tests.property.tokenizers import KINDS, small_tokenizer
from tests.rerankers import Reranker

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = [
    path for path in sorted(CONFIGS.glob("*.yaml")) if load_config(path).protocol.name == "prompt"
]
QUERY = "when should a baby walk"
DOCUMENT = "most children take their first steps at about twelve months of age"
# A pair in one text, as causal models that name a label get it.
ONE_TEXT: list[dict[str, Any]] = [
    {"special": "<s>"},
    {"text": "Q: {query}\nD: {document}\nA:"},
    {"special": "</s>"},
]


def _config(parts: list[dict[str, Any]], **settings: Any) -> ProtocolConfig:
    return ProtocolConfig.model_validate({"name": "prompt", "prompt": parts, **settings})


def _shipped(name: str, **changes: Any) -> ProtocolConfig:
    config = load_config(CONFIGS / name)
    return config.with_options({f"protocol.{k}": v for k, v in changes.items()}).protocol


def _tokenize(tokenizer: Any, config: ProtocolConfig, query: str, document: str) -> PreparedPair:
    pair = ScorePair(query=query, document=document)
    return PromptProtocol(tokenizer, config).tokenize([pair])[0]


def _prompt(tokenizer: Any, config: ProtocolConfig, query: str, document: str) -> LabelPrompt:
    prompt = _tokenize(tokenizer, config, query, document)
    assert isinstance(prompt, LabelPrompt), prompt
    assert prompt.token_ids.dtype == "int32"
    return prompt


def _is_rejected(prompt: PreparedPair, reason: RejectionReason) -> bool:
    return prompt == Rejection(reason=reason)


@pytest.fixture(scope="module")
def bert(tiny_monobert: Reranker) -> BertWordPieceTokenizer:
    """The tokenizers library's own BERT, from the published vocabulary alone."""
    file = tiny_monobert.folder.parent / "published" / "vocab.txt"
    return BertWordPieceTokenizer(str(file), lowercase=True)


@pytest.fixture(scope="module")
def monobert(tiny_monobert: Reranker) -> Any:
    return load_tokenizer(ModelConfig(name=str(tiny_monobert.folder)))


@pytest.fixture(scope="module")
def rankllama(tiny_rankllama: Reranker) -> Any:
    return load_tokenizer(ModelConfig(name=str(tiny_rankllama.folder)))


@pytest.fixture(scope="module")
def llama_pieces(tiny_rankllama: Reranker) -> Any:
    """SentencePiece itself, on the tokenizer.model of RankLLaMA's base."""
    from sentencepiece import SentencePieceProcessor

    model = tiny_rankllama.folder.parent / "base" / "tokenizer.model"
    return SentencePieceProcessor(model_file=str(model))


@pytest.fixture(scope="module")
def byte_level() -> Any:
    return small_tokenizer("byte-level")


# The published prompts


@pytest.mark.parametrize(
    ("query", "document"),
    [
        (QUERY, DOCUMENT),
        (QUERY.upper(), "Nähe, 12 % — naïve\tcafé!\n\n"),
        (QUERY, ""),
        ("[SEP] walk", "steps [CLS] of [MASK] age"),
        ("{document}", "{query} {document} {}"),
    ],
)
def test_monobert_is_the_pair_encoding_of_bert(
    bert: BertWordPieceTokenizer, monobert: Any, query: str, document: str
) -> None:
    expected = bert.encode(query, document)
    prompt = _prompt(monobert, _shipped("monobert-340m.yaml"), query, document)
    assert prompt.token_ids.tolist() == expected.ids
    second = expected.type_ids.index(1)
    assert prompt.second_segment == second
    assert prompt.num_query_tokens == second - 2
    assert prompt.num_document_tokens == len(expected.ids) - second - 1
    assert prompt.num_dropped_query_tokens == prompt.num_dropped_document_tokens == 0


def test_monobert_cuts_queries_to_64_tokens_and_then_the_passage(
    bert: BertWordPieceTokenizer, monobert: Any
) -> None:
    query, document = f"{QUERY} " * 30, f"{DOCUMENT} " * 80
    query_ids = bert.encode(query, add_special_tokens=False).ids
    document_ids = bert.encode(document, add_special_tokens=False).ids
    first, last = (bert.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    prompt = _prompt(monobert, _shipped("monobert-340m.yaml"), query, document)
    kept = 512 - 3 - 64
    expected = [first, *query_ids[:64], last, *document_ids[:kept], last]
    assert prompt.token_ids.tolist() == expected
    assert len(expected) == 512
    assert prompt.second_segment == 66
    assert prompt.num_query_tokens == 64
    assert prompt.num_dropped_query_tokens == len(query_ids) - 64
    assert prompt.num_document_tokens == kept
    assert prompt.num_dropped_document_tokens == len(document_ids) - kept


@pytest.mark.parametrize("times", [1, 30])
def test_rankllama_is_two_texts_of_32_and_161_tokens_with_a_bos_before_each(
    llama_pieces: Any, rankllama: Any, times: int
) -> None:
    query, document = f"{QUERY} " * times, f"{DOCUMENT} " * times
    query_ids = llama_pieces.encode(f"query: {query}")
    document_ids = llama_pieces.encode(f"document: {document}")
    prompt = _prompt(rankllama, _shipped("rankllama-7b.yaml"), query, document)
    bos = llama_pieces.bos_id()
    assert prompt.token_ids.tolist() == [bos, *query_ids[:32], bos, *document_ids[:161]]
    assert prompt.second_segment is None
    assert prompt.num_dropped_query_tokens == max(0, len(query_ids) - 32)
    assert prompt.num_dropped_document_tokens == max(0, len(document_ids) - 161)
    num_words = (len(llama_pieces.encode(text)) for text in ("query:", "document:"))
    num_kept = (prompt.num_query_tokens, prompt.num_document_tokens)
    assert len(prompt.token_ids) == 2 + sum(num_words) + sum(num_kept)


def test_one_text_holds_query_and_document_between_special_tokens(byte_level: Any) -> None:
    prompt = _prompt(byte_level, _config(ONE_TEXT), QUERY, DOCUMENT)
    text = f"Q: {QUERY}\nD: {DOCUMENT}\nA:"
    middle = byte_level.encode(text, add_special_tokens=False)
    assert prompt.token_ids.tolist() == [1, *middle, 2]
    # A piece's tokens are those that begin in it.
    assert byte_level.decode(prompt.token_ids[1:-1].tolist()) == text
    around = byte_level.encode("Q:\nD:\nA:", add_special_tokens=False)
    num_counted = prompt.num_query_tokens + prompt.num_document_tokens
    assert num_counted == len(prompt.token_ids) - 2 - len(around)


def test_the_document_may_come_before_the_query(byte_level: Any) -> None:
    parts = [{"text": "{document}\n{query}"}]
    whole = _prompt(byte_level, _config(parts), QUERY, DOCUMENT)
    limit = len(whole.token_ids) - 5
    cut = _prompt(byte_level, _config(parts, max_length=limit), QUERY, DOCUMENT)
    assert cut.num_dropped_document_tokens == 5
    assert cut.num_query_tokens == whole.num_query_tokens
    num_kept = whole.num_document_tokens - 5
    expected = whole.token_ids.tolist()
    assert cut.token_ids.tolist() == expected[:num_kept] + expected[num_kept + 5 :]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_prompts_keep_what_stands_around_query_and_document(
    path: Path, byte_level: Any
) -> None:
    config = load_config(path).protocol
    names = [part.special for part in config.prompt if part.special]
    byte_level.add_special_tokens({"additional_special_tokens": sorted(set(names))})
    prompt = _prompt(byte_level, config, QUERY, f"{DOCUMENT} " * 2000)
    assert len(prompt.token_ids) <= config.max_tokens
    assert prompt.num_dropped_document_tokens > 0
    assert prompt.num_dropped_query_tokens == 0
    fixed = [part.text for part in config.prompt if part.text and "{" not in part.text]
    text = byte_level.decode(prompt.token_ids.tolist())
    assert all(piece in text for piece in fixed)


# Limits


def test_a_query_that_leaves_no_room_is_too_long(byte_level: Any) -> None:
    whole = _prompt(byte_level, _config(ONE_TEXT), QUERY, DOCUMENT)
    limit = len(whole.token_ids) - whole.num_document_tokens
    bare = _prompt(byte_level, _config(ONE_TEXT, max_length=limit), QUERY, DOCUMENT)
    assert bare.num_document_tokens == 0
    assert bare.num_dropped_document_tokens == whole.num_document_tokens
    assert byte_level.decode(bare.token_ids[1:-1].tolist()) == f"Q: {QUERY}\nD:\nA:"
    one_less = _tokenize(byte_level, _config(ONE_TEXT, max_length=limit - 1), QUERY, DOCUMENT)
    assert _is_rejected(one_less, RejectionReason.QUERY_TOO_LONG)


def test_a_limit_on_a_text_with_both_cuts_the_document(byte_level: Any) -> None:
    parts = [ONE_TEXT[1] | {"max_tokens": 20}]
    prompt = _prompt(byte_level, _config(parts), QUERY, f"{DOCUMENT} " * 5)
    assert len(prompt.token_ids) == 20
    assert prompt.num_dropped_query_tokens == 0
    text = byte_level.decode(prompt.token_ids.tolist())
    assert text.startswith(f"Q: {QUERY}\nD: most") and text.endswith("\nA:")


def test_a_limit_that_leaves_nothing_of_a_query_makes_it_too_long(byte_level: Any) -> None:
    parts: list[dict[str, Any]] = [
        {"text": "query: {query}", "max_tokens": 1},
        {"text": "{document}"},
    ]
    prompt = _tokenize(byte_level, _config(parts), QUERY, DOCUMENT)
    assert _is_rejected(prompt, RejectionReason.QUERY_TOO_LONG)


@pytest.mark.parametrize("query", ["", "  ", "\n\t"])
def test_a_query_without_text_is_rejected(byte_level: Any, query: str) -> None:
    prompt = _tokenize(byte_level, _config(ONE_TEXT), query, DOCUMENT)
    assert _is_rejected(prompt, RejectionReason.EMPTY_QUERY)


def test_a_query_of_which_the_tokenizer_leaves_nothing_is_rejected(monobert: Any) -> None:
    # BERT drops control characters.
    prompt = _tokenize(monobert, _shipped("monobert-340m.yaml"), "\x01\x02", DOCUMENT)
    assert _is_rejected(prompt, RejectionReason.EMPTY_QUERY)


def test_an_empty_document_is_scored(byte_level: Any) -> None:
    prompt = _prompt(byte_level, _config(ONE_TEXT), QUERY, "")
    assert prompt.num_document_tokens == prompt.num_dropped_document_tokens == 0
    assert byte_level.decode(prompt.token_ids[1:-1].tolist()) == f"Q: {QUERY}\nD: \nA:"


def test_placeholders_inside_texts_stay_text(byte_level: Any) -> None:
    query, document = "what is {document}", "{query} and {document} and {}"
    prompt = _prompt(byte_level, _config(ONE_TEXT), query, document)
    text = byte_level.decode(prompt.token_ids[1:-1].tolist())
    assert text == f"Q: {query}\nD: {document}\nA:"


def test_rows_that_are_no_pairs_stay_what_they_are(byte_level: Any) -> None:
    rejected = Rejection(reason=RejectionReason.NULL_QUERY)
    score = Score(
        value=1.0,
        sum_logprob=None,
        num_query_tokens=1,
        num_document_tokens=1,
        num_dropped_document_tokens=0,
    )
    reused = ReusedScore(score=score, logprobs=None)
    pair = ScorePair(query=QUERY, document=DOCUMENT)
    protocol = PromptProtocol(byte_level, _config(ONE_TEXT))
    first, second, third = protocol.tokenize([rejected, pair, reused])
    assert first is rejected and third is reused
    assert isinstance(second, LabelPrompt)
    assert protocol.tokenize([]) == []


def test_a_special_token_that_the_vocabulary_lacks_is_named(tiny_tokenizer: Path) -> None:
    config = _config([{"special": "[CLS]"}, {"text": "{query} {document}"}])
    with pytest.raises(ConfigError, match=r"no token '\[CLS\]'.*tokenizer\.json"):
        load_protocol(config, ModelConfig(name=str(tiny_tokenizer)))


# Any texts

_TOKENIZERS = {kind: small_tokenizer(kind) for kind in KINDS}
_TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from([*DOCUMENT.split(), "  ", "\n", "{query}", "é", "一", "</s>"]), max_size=20
).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(kind=st.sampled_from(KINDS), query=_TEXT, document=_TEXT, limit=st.integers(1, 60))
def test_whatever_is_cut_is_the_end_of_the_document(
    kind: str, query: str, document: str, limit: int
) -> None:
    tokenizer = _TOKENIZERS[kind]
    parts = [*ONE_TEXT[:2], {"text": "then", "segment": 1}, {"special": "</s>", "segment": 1}]
    whole = _tokenize(tokenizer, _config(parts, max_length=10_000), query, document)
    cut = _tokenize(tokenizer, _config(parts, max_length=limit), query, document)
    if isinstance(whole, Rejection):
        assert cut == whole
        return
    assert isinstance(whole, LabelPrompt)
    # Tokenised apart, without special tokens, and joined.
    backend = tokenizer.backend_tokenizer
    texts = [f"Q: {query}\nD: {document}\nA:", "then"]
    first, last = (backend.encode(text, add_special_tokens=False).ids for text in texts)
    expected = [1, *first, *last, 2]
    assert whole.token_ids.tolist() == expected
    assert whole.second_segment == 1 + len(first)
    shortest = len(expected) - whole.num_document_tokens
    if limit < shortest:
        assert _is_rejected(cut, RejectionReason.QUERY_TOO_LONG)
        return
    assert isinstance(cut, LabelPrompt)
    num_cut = max(0, len(expected) - limit)
    assert cut.num_dropped_document_tokens == num_cut
    assert cut.num_document_tokens == whole.num_document_tokens - num_cut
    assert cut.num_query_tokens == whole.num_query_tokens > 0
    assert cut.second_segment == 1 + len(first) - num_cut
    # One run of tokens is missing, and what stands behind it is whole.
    ids = cut.token_ids.tolist()
    assert len(ids) == len(expected) - num_cut
    assert any(
        ids == expected[:place] + expected[place + num_cut :] for place in range(len(ids) + 1)
    )
    assert ids[-len(last) - 1 :] == [*last, 2]
