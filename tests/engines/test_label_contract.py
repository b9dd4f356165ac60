"""What every engine that judges pairs promises, whatever it computes with. One start of vLLM."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rgpt_batch.engines import AnyEngine
from tests.engines.configs import open_engine
from tests.engines.judging import TOLERANCE, judging_config, logits, make_prompt
from tests.rerankers import Reranker

METHODS = ("fake", "transformers", pytest.param("pooling", marks=pytest.mark.vllm))


@pytest.fixture(scope="module", params=METHODS)
def engine(request: pytest.FixtureRequest, tiny_monobert: Reranker) -> Iterator[AnyEngine]:
    score = {"kind": "classification", "relevant": 0, "not_relevant": 1}
    config = judging_config(tiny_monobert.folder, request.param, score, types=True)
    with open_engine(config) as engine:
        yield engine


def test_an_empty_list_gives_an_empty_list(engine: AnyEngine) -> None:
    assert engine.score([]) == []


def test_answers_are_float32_in_the_order_of_the_prompts(engine: AnyEngine) -> None:
    prompts = [make_prompt(length, seed) for seed, length in enumerate((40, 3, 200, 90, 1))]
    answers = engine.score([*prompts, prompts[1]])
    assert all(answer.values.dtype == np.float32 for answer in answers)
    together = logits(answers)
    assert together.shape == (6, 2)
    np.testing.assert_array_equal(together[5], together[1])
    backwards = logits(engine.score(prompts[::-1]))[::-1]
    alone = np.concatenate([logits(engine.score([prompt])) for prompt in prompts])
    np.testing.assert_allclose(backwards, together[:5], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(alone, together[:5], rtol=0, atol=TOLERANCE)


def test_every_token_counts(engine: AnyEngine) -> None:
    prompt = make_prompt(40)
    changed = []
    for position in (0, 20, 39):
        other = make_prompt(40)
        other.token_ids[position] += 1
        changed.append(other)
    original, *others = logits(engine.score([prompt, *changed]))
    for other in others:
        assert np.abs(other - original).max() > 10 * TOLERANCE
