"""Pairs in a table of their own, with or without texts.

So come RankingGPT's top1000.json (`qid`, `pid`, `query`, `passage` on each line), PyTerrier's
result frames (`qid`, `docno`, `query`, `rank`, `score`), data sets of Hugging Face, and tables of
ids whose texts stand elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rgpt_batch.config.arguments import Location
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.relations import (
    DOCUMENTS,
    PAIRS,
    QUERIES,
    Kind,
    Relations,
    Table,
)
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.tables import open_table

OpenTexts = Callable[[], Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSource:
    """A table of pairs; a text that it lacks is looked up in the table of queries or documents.

    Attributes:
        queries: Where given, the queries' texts come from here, even if the pairs have some.
        corpus: The same for documents.
    """

    pairs: Location
    queries: Location | None
    corpus: Location | None

    def open(self, spool: Spool) -> Relations:
        """Read the pairs, then the tables."""

        def later(given: Location | None, kind: Kind) -> OpenTexts | None:
            return None if given is None else lambda: open_table(given, kind, spool)

        return with_texts(
            open_table(self.pairs, PAIRS, spool),
            later(self.queries, QUERIES),
            later(self.corpus, DOCUMENTS),
            corpus_option="--corpus",
        )


def with_texts(
    candidates: Table,
    open_queries: OpenTexts | None,
    open_corpus: OpenTexts | None,
    *,
    corpus_option: str,
) -> Relations:
    """Add the tables of the texts to candidates.

    Args:
        candidates: With or without texts.
        open_queries: Where given, the queries' texts come from here, even if the candidates have
            some.
        open_corpus: The same for documents.
        corpus_option: The option that names the corpus.

    Raises:
        ConfigError: A text is neither in the candidates nor in a table.
        ShardError: A table is unreadable, or lacks a column.
    """
    for role, given, option in (
        ("query", open_queries, "--queries"),
        ("document", open_corpus, corpus_option),
    ):
        if given is not None:
            candidates = candidates.without(role)
        elif role not in candidates.columns:
            raise ConfigError(
                f"{candidates.origin}: the candidates have no {role} column. Give the table of "
                f"texts with {option}, or rename the column."
            )
    return Relations(
        candidates=candidates,
        queries=None if open_queries is None else open_queries(),
        documents=None if open_corpus is None else open_corpus(),
    )
