"""Candidates from a run, texts from tables: what Lucene, Anserini, PyTerrier and Terrier leave."""

from __future__ import annotations

from dataclasses import dataclass

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.importing.readers.relations import DOCUMENTS, QUERIES, Relations, Table
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.tables import open_table
from rgpt_batch.importing.readers.text import spool_rows
from rgpt_batch.importing.readers.trec import open_run_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class TrecSource:
    """A run, and tables of queries and documents in any format of tables.py."""

    run: Location
    queries: Location
    corpus: Location

    def open(self, spool: Spool) -> Relations:
        """Read the run, then the tables."""
        return Relations(
            candidates=open_run(self.run, spool),
            queries=open_table(self.queries, QUERIES, spool),
            documents=open_table(self.corpus, DOCUMENTS, spool),
        )


def open_run(given: Location, spool: Spool) -> Table:
    """Write a run to the spool; see readers.trec.

    Raises:
        ShardError: The file is unreadable, or a line is not what it should be.
    """
    path = as_location(given, "run")
    run = open_run_lines(path)
    rows = (
        (number, [fields[place] for place in run.layout.values()]) for number, fields in run.rows
    )
    return spool_rows(path, {role: role for role in run.layout}, rows, spool)
