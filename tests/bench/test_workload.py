"""Texts to measure with."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgpt_batch.bench.shapes import TOKENIZER, find_shape, save_random_model
from rgpt_batch.bench.workload import Workload, make_pairs, single_token_words
from rgpt_batch.config.options import ModelConfig
from rgpt_batch.config.prompts import ProtocolConfig
from rgpt_batch.records import TokenizedPair
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.tokenizer import load_tokenizer

WORKLOAD = Workload(document_tokens=80, query_tokens=8, queries_per_document=4)


@pytest.mark.parametrize("shape", ["bloom-560m-tiny", "llama2-7b-tiny", "qwen-7b-tiny"])
def test_texts_have_the_tokens_that_were_asked_for(shape: str, tmp_path: Path) -> None:
    folder = save_random_model(find_shape(shape), tmp_path / "model", weights=False)
    model = ModelConfig(name=str(folder), tokenizer=str(folder / TOKENIZER))
    words = single_token_words(load_tokenizer(model))
    pairs = load_protocol(ProtocolConfig(), model).tokenize(make_pairs(WORKLOAD, 12, words, seed=1))
    assert len(pairs) == 12
    for pair in pairs:
        assert isinstance(pair, TokenizedPair)
        assert (pair.num_document_tokens, pair.num_query_tokens) == (80, 8)


def test_words_of_an_ordinary_tokenizer_are_one_token_each(tiny_tokenizer: Path) -> None:
    tokenizer = load_tokenizer(ModelConfig(name=str(tiny_tokenizer)))
    words = single_token_words(tokenizer, num_words=50)
    assert len(set(words)) == 50
    text = " ".join(words)
    assert len(tokenizer.backend_tokenizer.encode(f" {text}", add_special_tokens=False)) == 50


def test_pairs_of_a_document_follow_each_other_and_other_turns_have_other_documents() -> None:
    words = [f"w{i}" for i in range(500)]
    first, *others = (make_pairs(WORKLOAD, 8, words, seed=seed) for seed in (1, 2, 0, -1, -2))
    assert [pair.document for pair in first[:4]] == [first[0].document] * 4
    assert len({pair.query for pair in first}) == 8
    for other in others:
        assert not {pair.document for pair in first} & {pair.document for pair in other}
    assert make_pairs(WORKLOAD, 8, words, seed=1) == first


@pytest.mark.parametrize(("num_pairs", "expected"), [(0, 4), (1, 4), (4, 4), (5, 8)])
def test_documents_keep_all_their_queries(num_pairs: int, expected: int) -> None:
    assert WORKLOAD.round_up(num_pairs) == expected
