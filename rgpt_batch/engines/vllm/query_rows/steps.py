"""Which prompts are computed together, and where their keys and values lie.

All prompts of a batch are known, and none generates a token. So a step can be laid out as a whole:
vLLM's scheduler, which finds a place for one token after the other, has nothing to find out.

A prompt is a pair without its last token. A step computes prompts whole. Their keys and values lie
in blocks, which are free again when the step is over. Where a prompt begins as the one before it
does, the two have their first blocks in common, and the second one's part of them is not computed:

    first    [Document: to w][alk babies nee][d time. Query: ][how ...    computed whole
    second   [      shared  ][   shared     ][d time. Query: ][when ...   only the rest is computed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rgpt_batch.records import TokenizedPair

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a step may hold.

    Attributes:
        tokens: Computed in one step; at least those of the longest prompt.
        prompts: In one step.
        block_tokens: Tokens whose keys and values lie in one block.
        blocks: Numbers of the blocks that a step may fill.
    """

    tokens: int
    prompts: int
    block_tokens: int
    blocks: range


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Prompts that are computed together: P prompts with T tokens to compute and R rows to read.

    Attributes:
        token_ids: Shape (T,), prompt after prompt, without what is shared.
        positions: Shape (T,), of the tokens in their prompts.
        slots: Shape (T,), where their keys and values go: block * block_tokens + place.
        ends: Shape (P,), where each prompt's tokens end in token_ids.
        lengths: Shape (P,), tokens of the prompts, with what is shared.
        blocks: Shape (P, most blocks of a prompt); 0 behind a prompt's last one.
        rows: Shape (R,), indices in token_ids of the tokens before the query's tokens.
        targets: Shape (R,), the query's tokens.
        num_targets: Shape (P,), query tokens of each pair.
    """

    token_ids: _Ints
    positions: _Ints
    slots: _Ints
    ends: _Ints
    lengths: _Ints
    blocks: _Ints
    rows: _Ints
    targets: _Ints
    num_targets: _Ints

    @property
    def num_shared(self) -> int:
        """Tokens that are not computed, because the prompt before has them."""
        return int(self.lengths.sum()) - len(self.token_ids)


def lay_out(pairs: Sequence[TokenizedPair], limits: Limits, *, share: bool) -> Iterator[Step]:
    """Lay out steps for pairs, in their order.

    Args:
        pairs: Those that begin alike follow each other. None is longer than a step.
        limits: Of a step.
        share: Whether prompts may have blocks in common.

    Raises:
        ValueError: A prompt does not fit into a step.
    """
    draft = _Draft(limits, share)
    for pair in pairs:
        if draft.add(pair):
            continue
        if draft.pairs:
            yield draft.finish()
            draft = _Draft(limits, share)
        if not draft.add(pair):
            raise ValueError(f"a prompt of {len(pair.token_ids) - 1} tokens is no step's size")
    if draft.pairs:
        yield draft.finish()


@dataclass(slots=True)
class _Draft:
    limits: Limits
    share: bool
    pairs: list[TokenizedPair] = field(default_factory=list)
    num_shared_blocks: list[int] = field(default_factory=list)
    num_tokens: int = 0
    num_blocks: int = 0

    def add(self, pair: TokenizedPair) -> bool:
        """Add a pair, unless the step is full; returns whether it was added."""
        limits, length = self.limits, len(pair.token_ids) - 1
        shared = 0
        if self.share and self.pairs:
            # Shared rows are not computed, so none of them may be the query's.
            same = min(_num_same(self.pairs[-1].token_ids, pair.token_ids), pair.query_start - 1)
            shared = min(same, len(self.pairs[-1].token_ids) - 1) // limits.block_tokens
        num_tokens = self.num_tokens + length - shared * limits.block_tokens
        num_blocks = self.num_blocks + -(-length // limits.block_tokens) - shared
        if (
            len(self.pairs) == limits.prompts
            or num_tokens > limits.tokens
            or num_blocks > len(limits.blocks)
        ):
            return False
        self.pairs.append(pair)
        self.num_shared_blocks.append(shared)
        self.num_tokens, self.num_blocks = num_tokens, num_blocks
        return True

    def finish(self) -> Step:
        size = self.limits.block_tokens
        prompts = [pair.token_ids[:-1] for pair in self.pairs]
        lengths = np.array([len(prompt) for prompt in prompts])
        shared = np.array(self.num_shared_blocks)
        num_new = lengths - shared * size
        ends = num_new.cumsum()
        blocks = self._blocks(lengths, shared)
        positions = runs(shared * size, num_new)
        places = np.repeat(np.arange(len(prompts)), num_new), positions // size
        starts = np.array([pair.query_start for pair in self.pairs])
        num_targets = np.array([pair.num_query_tokens for pair in self.pairs])
        parts = zip(prompts, (shared * size).tolist(), strict=True)
        return Step(
            token_ids=np.concatenate([prompt[start:] for prompt, start in parts]),
            positions=positions,
            slots=blocks[places] * size + positions % size,
            ends=ends,
            lengths=lengths,
            blocks=blocks,
            # The row before each of the query's tokens; a prompt ends with the last of them.
            rows=runs(ends - num_targets, num_targets),
            targets=np.concatenate(
                [p.token_ids[start:] for p, start in zip(self.pairs, starts, strict=True)]
            ),
            num_targets=num_targets,
        )

    def _blocks(self, lengths: _Ints, shared: _Ints) -> _Ints:
        counts = -(-lengths // self.limits.block_tokens)
        table = np.zeros((len(lengths), counts.max()), dtype=np.int64)
        num_own = counts - shared
        own = np.repeat(np.arange(len(lengths)), num_own), runs(shared, num_own)
        table[own] = self.limits.blocks.start + np.arange(num_own.sum())
        for row in np.flatnonzero(shared).tolist():
            table[row, : shared[row]] = table[row - 1, : shared[row]]
        return table


def runs(firsts: _Ints, counts: _Ints) -> _Ints:
    """Concatenate the ranges first, first + 1, … of the given lengths."""
    ends = counts.cumsum()
    return np.arange(counts.sum()) + np.repeat(firsts - (ends - counts), counts)


def _num_same(left: npt.NDArray[np.int32], right: npt.NDArray[np.int32]) -> int:
    """Return how many first tokens are the same."""
    length = min(len(left), len(right))
    differs = left[:length] != right[:length]
    first = int(differs.argmax())
    return first if differs[first] else length
