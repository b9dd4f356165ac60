"""Scores equal the model card's computation, done by transformers alone in reference.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgpt_batch.records import ScorePair, TokenizedPair
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.score import to_score
from tests.engines.configs import METHODS, float32_config, open_engine
from tests.golden.pairs import short_varied_pairs, varied_pairs
from tests.golden.reference import load_reference
from tests.golden.tolerances import allowed, difference


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize(
    "model",
    [
        "tiny_llama",
        "tiny_bloom",
        "tiny_bloom_with_head",
        "tiny_bloom_head_twice",
        "tiny_bloom_pickled",
        "smollm2",
    ],
)
def test_scores_equal_the_model_cards_computation(
    model: str, method: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    texts = short_varied_pairs() if model == "smollm2" else varied_pairs()
    assert len(texts) >= 200
    if model in ("tiny_bloom_with_head", "tiny_bloom_head_twice", "tiny_bloom_pickled"):
        # tiny_bloom but for how its weights are stored.
        texts = texts[::5]
    if model == "smollm2" and method in ("prompt-logprobs", "transformers"):
        # The slow ones, of which one is the same library as the reference. Costs 10 to 15 s.
        texts = texts[::10]
    elif model == "smollm2":
        # Costs 30 s, most of it the reference.
        texts = texts[::4]
    config = float32_config(
        folder, method, allow_pickled_weights=not (folder / "model.safetensors").exists()
    )

    protocol = load_protocol(config.protocol, config.model)
    pairs = protocol.tokenize([ScorePair(query=query, document=text) for query, text in texts])
    prompts = [pair for pair in pairs if isinstance(pair, TokenizedPair)]
    assert len(prompts) == len(texts)
    with open_engine(config) as engine:
        logprobs = engine.score(prompts)
    scores = [to_score(*each) for each in zip(prompts, logprobs, strict=True)]

    reference = load_reference(folder)
    answers = [reference.card(*text) for text in texts]
    found = difference(logprobs, [score.value for score in scores], answers)
    limit = allowed(method, model)
    assert found.token <= limit.token
    assert found.mean <= limit.mean
    assert [s.num_query_tokens for s in scores] == [len(answer.values) for answer in answers]
    for score, answer in zip(scores, answers, strict=True):
        assert score.sum_logprob == pytest.approx(score.value * len(answer.values), rel=1e-12)


def test_the_model_card_example_is_among_the_pairs() -> None:
    assert (
        "when should a baby walk",
        "Most babies start to walk around 13 months, but your baby may start walking as early as "
        "9 or 10 months or as late as 15 or 16 months.",
    ) in short_varied_pairs()
