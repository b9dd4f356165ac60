"""The pooler of query-rows alone, over steps as vLLM may cut them; no engine, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rgpt_batch.records import TokenizedPair
from tests.engines.shared_prefixes import to_pair

pytestmark = pytest.mark.vllm

VOCAB_SIZE = 40
HIDDEN_SIZE = 8
HEAD = torch.randn(HIDDEN_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))


@dataclass
class Prompt:
    """A request in the hands of a model runner."""

    pair: TokenizedPair
    hidden_states: Any = field(init=False)
    params: Any = field(init=False)
    state: Any = field(init=False)

    def __post_init__(self) -> None:
        from vllm.v1.pool.metadata import PoolingStates

        from rgpt_batch.engines.vllm.query_rows.request import to_request

        request = to_request("0", self.pair, read_cache=True)
        self.params = request.pooling_params
        self.num_tokens = len(request.prompt_token_ids)
        self.hidden_states = torch.randn(self.num_tokens, HIDDEN_SIZE)
        self.state = PoolingStates()

    @property
    def expected(self) -> Any:
        logprobs = torch.log_softmax(self.hidden_states @ HEAD, dim=1)
        positions = range(self.pair.query_start, len(self.pair.token_ids))
        return torch.stack([logprobs[p - 1, int(self.pair.token_ids[p])] for p in positions])


def make_prompt(num_context_tokens: int, num_query_tokens: int) -> Prompt:
    ids = np.random.default_rng(num_context_tokens).integers(
        0, VOCAB_SIZE, num_context_tokens + num_query_tokens
    )
    return Prompt(to_pair(ids[:num_context_tokens], ids[num_context_tokens:]))


def make_pooler(vocab_size: int = VOCAB_SIZE, calls: list[int] | None = None) -> Any:
    from rgpt_batch.engines.vllm.query_rows.pooler import QueryRowsPooler

    def compute_logits(hidden_states: Any) -> Any:
        if calls is not None:
            calls.append(len(hidden_states))
        return hidden_states @ HEAD

    return QueryRowsPooler(compute_logits, vocab_size)


def step(pooler: Any, prompts: Sequence[Prompt], ranges: Sequence[tuple[int, int]]) -> list[Any]:
    """Run the pooler on the given ranges of positions of the prompts."""
    from vllm.v1.pool.metadata import PoolingMetadata

    metadata = PoolingMetadata(
        prompt_lens=torch.tensor([prompt.num_tokens for prompt in prompts]),
        prompt_token_ids=None,
        prompt_token_ids_cpu=None,
        pooling_params=[prompt.params for prompt in prompts],
        pooling_states=[prompt.state for prompt in prompts],
    )
    metadata.build_pooling_cursor(
        np.array([end - start for start, end in ranges]),
        torch.tensor([end for _, end in ranges]),
        device=torch.device("cpu"),
    )
    rows = [p.hidden_states[start:end] for p, (start, end) in zip(prompts, ranges, strict=True)]
    outputs: list[Any] = pooler(torch.cat(rows), metadata)
    return outputs


@pytest.mark.parametrize("batch_invariant", ["0", "1"])
def test_all_requests_of_a_step_share_one_product(
    batch_invariant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With 1, rows are normalised in the way for which vLLM has a kernel for GPUs.
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", batch_invariant)
    calls: list[int] = []
    prompts = [make_prompt(9, 4), make_prompt(1, 1), make_prompt(3, 7)]
    outputs = step(make_pooler(calls=calls), prompts, [(0, p.num_tokens) for p in prompts])
    assert calls == [4 + 1 + 7]
    for prompt, output in zip(prompts, outputs, strict=True):
        torch.testing.assert_close(output, prompt.expected)


@settings(max_examples=200, deadline=None)
@given(
    num_context_tokens=st.integers(1, 20),
    num_query_tokens=st.integers(1, 20),
    cuts=st.lists(st.integers(1, 38), max_size=6),
    preempted_after=st.integers(0, 6),
)
def test_chunks_and_preemption_change_nothing(
    num_context_tokens: int, num_query_tokens: int, cuts: list[int], preempted_after: int
) -> None:
    prompt = make_prompt(num_context_tokens, num_query_tokens)
    other = make_prompt(5, 3)
    ends = sorted({cut for cut in cuts if cut < prompt.num_tokens} | {prompt.num_tokens})
    ranges = list(zip([0, *ends], ends, strict=False))
    pooler = make_pooler()
    # A preempted request has lost its keys and values and starts again; V1 keeps its state.
    for chunk in [*ranges[:-1][:preempted_after], *ranges]:
        output, _ = step(pooler, [prompt, other], [chunk, (0, other.num_tokens)])
    torch.testing.assert_close(output, prompt.expected)


@pytest.mark.parametrize("first_computed", [10, 12, 15])
@pytest.mark.parametrize("num_chunks", [1, 2])
def test_a_row_that_was_not_computed_leaves_the_result_too_short(
    first_computed: int, num_chunks: int
) -> None:
    prompt = make_prompt(10, 7)
    assert prompt.num_tokens == 16
    middle = first_computed if num_chunks == 1 else (first_computed + 16) // 2
    for chunk in ((first_computed, middle), (middle, 16)):
        if chunk[0] < chunk[1]:
            [output] = step(make_pooler(), [prompt], [chunk])
    assert output is not None
    assert len(output) < 7


def test_a_request_is_answered_in_the_step_that_ends_it() -> None:
    prompt = make_prompt(4, 4)
    assert step(make_pooler(), [prompt], [(0, 3)]) == [None]
    assert step(make_pooler(), [prompt], [(3, 5)]) == [None]
    [output] = step(make_pooler(), [prompt], [(5, 7)])
    torch.testing.assert_close(output, prompt.expected)


def test_rows_are_computed_in_blocks_of_at_most_half_a_gibibyte() -> None:
    calls: list[int] = []
    prompts = [make_prompt(2, 50) for _ in range(4)]
    vocab_size = 2**27 // 64
    outputs = step(
        make_pooler(vocab_size, calls), prompts, [(0, prompt.num_tokens) for prompt in prompts]
    )
    assert calls == [64, 64, 64, 8]
    for prompt, output in zip(prompts, outputs, strict=True):
        torch.testing.assert_close(output, prompt.expected)


def test_requests_without_a_query_use_as_much_memory_as_any() -> None:
    from vllm import PoolingParams

    calls: list[int] = []
    prompts = [make_prompt(100, 1) for _ in range(4)]
    for prompt in prompts:
        prompt.params = PoolingParams(task="classify")
    step(make_pooler(2**27 // 64, calls), prompts, [(0, prompt.num_tokens) for prompt in prompts])
    assert max(calls) == 64
