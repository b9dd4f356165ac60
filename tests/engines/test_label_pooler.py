"""The pooler of label tokens alone, over steps as vLLM may cut them; no engine, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.vllm

HEAD = torch.randn(8, 40, generator=torch.Generator().manual_seed(0))
LABELS = [7, 3]


def make_pooler(*, vocab_size: int = 40, calls: list[int] | None = None, head: Any = HEAD) -> Any:
    from rgpt_batch.engines.vllm.query_rows.label_pooler import LabelPooler

    def compute_logits(hidden_states: Any) -> Any:
        if calls is not None:
            calls.append(len(hidden_states))
        return None if head is None else hidden_states @ head

    return LabelPooler(compute_logits, vocab_size, LABELS)


def step(pooler: Any, prompts: Sequence[Any], ranges: Sequence[tuple[int, int]]) -> list[Any]:
    """Run the pooler on the given ranges of positions; a prompt is its hidden states."""
    from vllm import PoolingParams
    from vllm.v1.pool.metadata import PoolingMetadata, PoolingStates

    metadata = PoolingMetadata(
        prompt_lens=torch.tensor([len(prompt) for prompt in prompts]),
        prompt_token_ids=None,
        prompt_token_ids_cpu=None,
        pooling_params=[PoolingParams(task="classify") for _ in prompts],
        pooling_states=[PoolingStates() for _ in prompts],
    )
    starts = torch.tensor([0, *np.cumsum([end - start for start, end in ranges])])
    metadata.build_pooling_cursor(
        np.array([end - start for start, end in ranges]),
        torch.tensor([end for _, end in ranges]),
        device=torch.device("cpu"),
        query_start_loc_gpu=starts.to(torch.int32),
    )
    rows = [prompt[start:end] for prompt, (start, end) in zip(prompts, ranges, strict=True)]
    outputs: list[Any] = pooler(torch.cat(rows), metadata)
    return outputs


def test_each_prompt_is_answered_from_its_last_row_in_the_order_of_the_labels() -> None:
    prompts = [torch.randn(length, 8) for length in (9, 1, 30)]
    outputs = step(make_pooler(), prompts, [(0, len(prompt)) for prompt in prompts])
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.dtype == torch.float32
        torch.testing.assert_close(output, (prompt[-1] @ HEAD)[LABELS])


def test_a_prompt_in_chunks_is_answered_in_the_step_that_ends_it() -> None:
    prompt, other = torch.randn(12, 8), torch.randn(4, 8)
    unfinished, answer = step(make_pooler(), [prompt, other], [(0, 5), (0, 4)])
    assert unfinished is None
    torch.testing.assert_close(answer, (other[-1] @ HEAD)[LABELS])
    # Beside another, after a step in which nothing of it ended.
    assert step(make_pooler(), [prompt], [(5, 11)]) == [None]
    answer, unfinished = step(make_pooler(), [prompt, other], [(11, 12), (0, 3)])
    assert unfinished is None
    torch.testing.assert_close(answer, (prompt[-1] @ HEAD)[LABELS])


def test_logits_in_16_bit_come_as_float32() -> None:
    prompt = torch.randn(3, 8).to(torch.bfloat16)
    [output] = step(make_pooler(head=HEAD.to(torch.bfloat16)), [prompt], [(0, 3)])
    assert output.dtype == torch.float32


def test_a_rank_without_logits_answers_in_the_same_shape() -> None:
    [output] = step(make_pooler(head=None), [torch.randn(3, 8)], [(0, 3)])
    assert output.shape == (2,)


def test_rows_are_computed_in_blocks_of_at_most_half_a_gibibyte() -> None:
    calls: list[int] = []
    prompts = [torch.randn(2, 8) for _ in range(200)]
    pooler = make_pooler(vocab_size=2**27 // 64, calls=calls)
    outputs = step(pooler, prompts, [(0, 2)] * len(prompts))
    assert calls == [64, 64, 64, 8]
    for prompt, output in zip(prompts, outputs, strict=True):
        torch.testing.assert_close(output, (prompt[-1] @ HEAD)[LABELS])
