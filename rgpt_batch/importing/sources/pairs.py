"""Pairs in a table of their own, with or without texts.

So come RankingGPT's top1000.json (`qid`, `pid`, `query`, `passage` on each line), PyTerrier's
result frames (`qid`, `docno`, `query`, `rank`, `score`), data sets of Hugging Face, and tables of
ids whose texts stand elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from rgpt_batch.config.arguments import Location
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.relations import DOCUMENTS, PAIRS, QUERIES, Relations
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.tables import open_table


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
        pairs = open_table(self.pairs, PAIRS, spool)
        for role, given, option in (
            ("query", self.queries, "--queries"),
            ("document", self.corpus, "--corpus"),
        ):
            if given is not None:
                pairs = pairs.without(role)
            elif role not in pairs.columns:
                raise ConfigError(
                    f"{self.pairs}: the pairs have no {role} column. Give the table of texts with "
                    f"{option}, or rename the column."
                )
        return Relations(
            candidates=pairs,
            queries=None if self.queries is None else open_table(self.queries, QUERIES, spool),
            documents=None if self.corpus is None else open_table(self.corpus, DOCUMENTS, spool),
        )
