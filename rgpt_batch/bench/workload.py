"""Pairs to measure with: random words, in the lengths that are asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.records import ScorePair


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to score.

    Attributes:
        document_tokens: About how long documents are, in tokens.
        query_tokens: About how long queries are, in tokens.
        queries_per_document: How many pairs share a document.
    """

    document_tokens: int
    query_tokens: int
    queries_per_document: int

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.document_tokens} tokens, {self.queries_per_document} per document"

    def round_up(self, num_pairs: int) -> int:
        """Return the next number of pairs in which every document has all its queries."""
        return -(-max(1, num_pairs) // self.queries_per_document) * self.queries_per_document


class Texts(Protocol):
    """Where pairs come from."""

    def draw(self, workload: Workload, num_pairs: int, seed: int) -> list[ScorePair]:
        """Return pairs that no other seed gives: as many as are asked for, or all there are."""
        ...


@dataclass(frozen=True, slots=True)
class RandomTexts:
    """Texts of random words."""

    words: Sequence[str]

    def draw(self, workload: Workload, num_pairs: int, seed: int) -> list[ScorePair]:
        """Return as many as are asked for."""
        return make_pairs(workload, num_pairs, self.words, seed)


def make_pairs(
    workload: Workload, num_pairs: int, words: Sequence[str], seed: int
) -> list[ScorePair]:
    """Draw random texts. Other seeds give other documents, which no cache has seen."""
    # A number and its negative would give the same texts.
    chooser = random.Random(str(seed))

    def text(num_words: int) -> str:
        return " ".join(chooser.choices(words, k=num_words))

    pairs: list[ScorePair] = []
    while len(pairs) < num_pairs:
        document = text(workload.document_tokens)
        pairs += [
            ScorePair(query=text(workload.query_tokens), document=document)
            for _ in range(workload.queries_per_document)
        ]
    return pairs[:num_pairs]


def single_token_words(tokenizer: Any, num_words: int = 2000) -> list[str]:
    """Find words that are one token each when they stand behind a blank.

    Args:
        tokenizer: As load_tokenizer returns it.
        num_words: How many are enough.
    """
    words: dict[str, None] = {}
    backend = tokenizer.backend_tokenizer
    for token_id in range(backend.get_vocab_size(with_added_tokens=False)):
        word = tokenizer.decode([token_id]).strip()
        if (
            len(word) > 2
            and word.isalpha()
            and len(backend.encode(f" {word}", add_special_tokens=False)) == 1
        ):
            words[word] = None
        if len(words) == num_words:
            break
    return list(words)


def write_pairs(pairs: Sequence[ScorePair], path: Path) -> None:
    """Write pairs as an input of the main job."""
    table = pa.table(
        {
            "query_id": [f"q{index}" for index in range(len(pairs))],
            "doc_id": [f"d{index}" for index in range(len(pairs))],
            "query": [pair.query for pair in pairs],
            "document": [pair.document for pair in pairs],
        }
    )
    pq.write_table(table, path)
