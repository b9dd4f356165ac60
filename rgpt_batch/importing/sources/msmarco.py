"""MS MARCO's files: collection.tsv, queries.tsv, and top1000 or a run of three columns.

    collection.tsv   pid  passage
    queries.tsv      qid  query
    top1000.dev      qid  pid  query  passage
    run              qid  pid  rank

All are tab-separated, without header and without quoting.
"""

from __future__ import annotations

from dataclasses import dataclass

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.importing.readers.relations import PAIRS, Relations
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.text import open_tab_separated


@dataclass(frozen=True, slots=True, kw_only=True)
class Top1000Source:
    """A file of pairs with their texts. With collection and queries, a run is a TrecSource."""

    path: Location

    def open(self, spool: Spool) -> Relations:
        """Read the pairs."""
        roles = ("query_id", "doc_id", "query", "document")
        pairs = open_tab_separated(as_location(self.path, "top1000"), PAIRS, spool, roles=roles)
        return Relations(candidates=pairs, queries=None, documents=None)
