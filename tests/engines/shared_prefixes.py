"""Pairs that share documents in every way that a prefix cache could get wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rgpt_batch.records import TokenizedPair
from tests.models import VOCAB_SIZE

BLOCK_SIZE = 32
MAX_LENGTH = 320
_NUM_ROUNDS = 5


def to_pair(context: np.ndarray, query: np.ndarray) -> TokenizedPair:
    """Join token ids."""
    return TokenizedPair(
        token_ids=np.concatenate([context, query]).astype(np.int32),
        query_start=len(context),
        num_document_tokens=len(context),
        num_dropped_document_tokens=0,
    )


def adversarial_pairs(num_documents: int) -> list[TokenizedPair]:
    """Make 27 pairs for each document, in random order.

    Contexts are as long as whole cache blocks, or one token more or less. Queries of a document
    are random, single tokens, or begin like each other, across the ends of blocks. Some pairs come
    twice; some have the tokens of another pair, but a query that begins earlier.
    """
    rng = np.random.default_rng(0)
    pairs = [pair for _ in range(num_documents) for pair in _pairs_of_one_document(rng)]
    return [pairs[index] for index in rng.permutation(len(pairs))]


def _pairs_of_one_document(rng: np.random.Generator) -> Iterator[TokenizedPair]:
    def tokens(low: int, high: int) -> np.ndarray:
        return rng.integers(3, VOCAB_SIZE, rng.integers(low, high))

    num_tokens = int(rng.integers(1, 7)) * BLOCK_SIZE + int(rng.integers(-1, 2))
    document = tokens(num_tokens, num_tokens + 1)
    beginning = tokens(40, 41)
    for _ in range(_NUM_ROUNDS):
        yield to_pair(document, tokens(1, 2))
        yield to_pair(document, tokens(1, 40))
        begun = to_pair(document, beginning[: rng.integers(1, 40)])
        yield begun
        yield begun
        continued = to_pair(
            document, np.concatenate([beginning[: rng.integers(1, 40)], tokens(1, 6)])
        )
        yield continued
    earlier = max(1, len(document) - BLOCK_SIZE // 2)
    yield to_pair(continued.token_ids[:earlier], continued.token_ids[earlier:])
    yield to_pair(document[:1], document[1:])


def mixed_pairs(num_documents: int, max_tokens: int) -> list[TokenizedPair]:
    """Three queries, one of them twice, for documents of up to max_tokens tokens."""
    rng = np.random.default_rng(1)

    def tokens(high: int) -> np.ndarray:
        return rng.integers(3, 1000, rng.integers(1, high + 1))

    pairs = []
    for _ in range(num_documents):
        document = tokens(max_tokens)
        pairs += [to_pair(document, tokens(high)) for high in (1, 12, 100)]
        pairs.append(pairs[-2])
    return pairs
