"""Steps that are laid out by hand: every prompt is where its attention looks for it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rgpt_batch.engines.vllm.query_rows.steps import Limits, Step, lay_out
from rgpt_batch.records import TokenizedPair

LONGEST = 24
# Few different tokens, so that prompts begin alike by chance as well.
token_lists = st.lists(st.integers(1, 2), min_size=1, max_size=LONGEST // 2)


def to_pair(document: list[int], query: list[int]) -> TokenizedPair:
    return TokenizedPair(
        token_ids=np.array([*document, *query], dtype=np.int32),
        query_start=len(document),
        num_document_tokens=len(document),
        num_dropped_document_tokens=0,
    )


pair_lists = st.lists(st.builds(to_pair, token_lists, token_lists), min_size=1, max_size=30).map(
    lambda pairs: sorted(pairs, key=lambda pair: pair.token_ids.tobytes())
)


@st.composite
def limits_of_steps(draw: st.DrawFn) -> Limits:
    size = draw(st.sampled_from([1, 2, 4, 16]))
    first = draw(st.integers(1, 3))
    most = draw(st.integers(-(-LONGEST // size), 60))
    return Limits(
        tokens=draw(st.integers(LONGEST, 120)),
        prompts=draw(st.integers(1, 10)),
        block_tokens=size,
        blocks=range(first, first + most),
    )


def pairs_of(steps: list[Step], pairs: list[TokenizedPair]) -> list[list[TokenizedPair]]:
    """The pairs of each step."""
    waiting = iter(pairs)
    return [[next(waiting) for _ in step.lengths] for step in steps]


def cache_after(step: Step, limits: Limits) -> dict[int, int]:
    """Which token lies in which slot; each slot is written once."""
    cache = dict(zip(step.slots.tolist(), step.token_ids.tolist(), strict=True))
    assert len(cache) == len(step.slots)
    assert {slot // limits.block_tokens for slot in cache} <= set(limits.blocks)
    return cache


@given(pairs=pair_lists, limits=limits_of_steps(), share=st.booleans())
def test_attention_finds_each_prompt_whole(
    pairs: list[TokenizedPair], limits: Limits, share: bool
) -> None:
    steps = list(lay_out(pairs, limits, share=share))
    assert sum(len(step.lengths) for step in steps) == len(pairs)
    for step, own in zip(steps, pairs_of(steps, pairs), strict=True):
        cache = cache_after(step, limits)
        for pair, length, row in zip(own, step.lengths, step.blocks, strict=True):
            positions = np.arange(length)
            slots = row[positions // limits.block_tokens] * limits.block_tokens
            slots += positions % limits.block_tokens
            assert [cache[slot] for slot in slots.tolist()] == pair.token_ids[:-1].tolist()


@given(pairs=pair_lists, limits=limits_of_steps(), share=st.booleans())
def test_rows_are_those_before_the_tokens_of_the_query(
    pairs: list[TokenizedPair], limits: Limits, share: bool
) -> None:
    steps = list(lay_out(pairs, limits, share=share))
    for step, own in zip(steps, pairs_of(steps, pairs), strict=True):
        queries = [pair.token_ids[pair.query_start :].tolist() for pair in own]
        assert step.num_targets.tolist() == [len(query) for query in queries]
        assert step.targets.tolist() == [token for query in queries for token in query]
        before = [range(p.query_start - 1, len(p.token_ids) - 1) for p in own]
        assert step.positions[step.rows].tolist() == [row for rows in before for row in rows]
        # Of the right prompt: its tokens end where `ends` says.
        prompt_of_row = np.searchsorted(step.ends, step.rows, side="right")
        assert prompt_of_row.tolist() == np.repeat(np.arange(len(own)), step.num_targets).tolist()


@given(pairs=pair_lists, limits=limits_of_steps(), share=st.booleans())
def test_steps_keep_to_their_limits_and_are_full(
    pairs: list[TokenizedPair], limits: Limits, share: bool
) -> None:
    steps = list(lay_out(pairs, limits, share=share))
    for step in steps:
        assert 0 < len(step.lengths) <= limits.prompts
        assert 0 < len(step.token_ids) <= limits.tokens
        assert np.diff(step.ends, prepend=0).min() > 0
    # What begins a step did not fit into the one before, shared with nothing.
    for step, following in itertools.pairwise(steps):
        length = int(following.lengths[0])
        used = len(np.unique(step.blocks[step.blocks > 0]))
        assert (
            len(step.lengths) == limits.prompts
            or len(step.token_ids) + length > limits.tokens
            or used + -(-length // limits.block_tokens) > len(limits.blocks)
        )


LIMITS = Limits(tokens=100, prompts=10, block_tokens=4, blocks=range(1, 100))
DOCUMENT = [5, 6, 7, 8, 9, 10, 11, 12, 13]


def test_a_document_is_computed_once_for_its_queries() -> None:
    pairs = [to_pair(DOCUMENT, query) for query in ([1, 2], [1, 3], [4])]
    (step,) = lay_out(pairs, LIMITS, share=True)
    # Two blocks of four; its ninth token is the row before the query's first.
    assert step.num_shared == 8 + 8
    assert step.positions.tolist() == [*range(10), 8, 9, 8]


def test_nothing_is_shared_where_sharing_is_off() -> None:
    pairs = [to_pair(DOCUMENT, [1, 2]), to_pair(DOCUMENT, [1, 3])]
    (step,) = lay_out(pairs, LIMITS, share=False)
    assert step.num_shared == 0
    assert len(set(step.slots.tolist())) == 20


def test_no_row_of_a_query_is_shared_with_a_longer_document() -> None:
    """The same tokens may be a document's for one pair, and a query's for the other."""
    pairs = [to_pair(DOCUMENT, [1, 2]), to_pair(DOCUMENT[:3], DOCUMENT[3:])]
    (step,) = lay_out(pairs, LIMITS, share=True)
    assert step.num_shared == 0


def test_what_fits_into_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt of 101 tokens"):
        list(lay_out([to_pair([1] * 101, [2])], LIMITS, share=True))
