"""Pairs to measure with: real words of the demo, in the lengths that are asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.records import ScorePair

# English words have about this many tokens in the vocabularies of today's models.
_TOKENS_PER_WORD = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What to score.

    Attributes:
        document_tokens: About how long documents are, in tokens.
        query_tokens: About how long queries are, in tokens.
        queries_per_document: How many pairs share a document.
    """

    num_pairs: int
    document_tokens: int
    query_tokens: int = 8
    queries_per_document: int = 1

    @property
    def label(self) -> str:
        """For tables."""
        return f"{self.document_tokens}-token documents, {self.queries_per_document} queries each"


def make_pairs(workload: Workload, words: Sequence[str], seed: int = 0) -> list[ScorePair]:
    """Draw random texts; the same seed gives the same pairs."""
    chooser = random.Random(seed)

    def text(num_tokens: int) -> str:
        return " ".join(chooser.choices(words, k=max(1, round(num_tokens / _TOKENS_PER_WORD))))

    pairs: list[ScorePair] = []
    while len(pairs) < workload.num_pairs:
        document = text(workload.document_tokens)
        for _ in range(min(workload.queries_per_document, workload.num_pairs - len(pairs))):
            pairs.append(ScorePair(query=text(workload.query_tokens), document=document))
    return pairs


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
