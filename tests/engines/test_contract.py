"""What every engine promises, whatever it computes with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.engines import AnyEngine
from tests.engines.configs import METHODS, float32_config, open_engine
from tests.engines.pairs import PAIRS, TOLERANCE, make_pair, with_token_ids
from tests.models import VOCAB_SIZE


@pytest.fixture(scope="module", params=METHODS)
def engine(request: pytest.FixtureRequest, tiny_llama: Path) -> Iterator[AnyEngine]:
    with open_engine(float32_config(tiny_llama, request.param)) as engine:
        yield engine


def test_an_empty_list_gives_an_empty_list(engine: AnyEngine) -> None:
    assert engine.score([]) == []


def test_every_query_token_gets_one_float32_logprob(engine: AnyEngine) -> None:
    answers = engine.score(PAIRS)
    assert [answer.values.shape for answer in answers] == [(p.num_query_tokens,) for p in PAIRS]
    for answer in answers:
        assert answer.values.dtype == np.float32
        assert np.isfinite(answer.values).all()
        assert (answer.values <= 0).all()


def test_answers_come_in_the_order_of_the_pairs(engine: AnyEngine) -> None:
    pairs = [make_pair(30, 5, seed) for seed in range(20)]
    answers = engine.score(pairs)
    backwards = engine.score(pairs[::-1])[::-1]
    for pair, answer, other in zip(pairs, answers, backwards, strict=True):
        [alone] = engine.score([pair])
        np.testing.assert_allclose(answer.values, alone.values, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(other.values, alone.values, rtol=0, atol=TOLERANCE)


def test_repeated_pairs_get_the_same_values(engine: AnyEngine) -> None:
    pair = make_pair(120, 6, seed=1)
    answers = engine.score([pair, make_pair(40, 4, seed=2), pair, pair])
    for index in (2, 3):
        np.testing.assert_allclose(answers[index].values, answers[0].values, rtol=0, atol=TOLERANCE)


def test_every_context_token_counts(engine: AnyEngine) -> None:
    pair = make_pair(30, 4)
    changed = []
    for position in (0, 15, 29):
        token_ids = pair.token_ids.copy()
        token_ids[position] = (token_ids[position] + 1) % VOCAB_SIZE
        changed.append(with_token_ids(pair, token_ids))
    original, *others = engine.score([pair, *changed])
    for other in others:
        assert np.abs(other.values - original.values).max() > 10 * TOLERANCE


def test_later_query_tokens_do_not_change_earlier_values(engine: AnyEngine) -> None:
    pair = make_pair(60, 10)
    whole, *beginnings = engine.score(
        [pair, *(with_token_ids(pair, pair.token_ids[: 60 + n]) for n in (1, 5, 9))]
    )
    for n, beginning in zip((1, 5, 9), beginnings, strict=True):
        np.testing.assert_allclose(beginning.values, whole.values[:n], rtol=0, atol=TOLERANCE)
