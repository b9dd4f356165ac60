"""Candidates from a run, texts from tables: what Lucene, Anserini, PyTerrier and Terrier leave."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rgpt_batch.config.arguments import Location, as_location
from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.lines import read_lines
from rgpt_batch.importing.readers.relations import DOCUMENTS, QUERIES, RANK, SCORE, Relations, Table
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.tables import open_table
from rgpt_batch.importing.readers.text import spool_rows

# query_id Q0 doc_id rank score tag
_TREC = {"query_id": 0, "doc_id": 2, RANK: 3, SCORE: 4}
# query_id doc_id rank
_MS_MARCO = {"query_id": 0, "doc_id": 1, RANK: 2}
_LAYOUTS = {6: _TREC, 3: _MS_MARCO}


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


def open_run(path: Location, spool: Spool) -> Table:
    """Write a run to the spool: TREC's six columns, or MS MARCO's three.

    Columns are separated by tabs or blanks. In a line of as many tab-separated columns as the
    format has, blanks belong to the values.

    Raises:
        ShardError: The file is unreadable, or a line is not what it should be.
    """
    path = as_location(path, "run")
    lines = read_lines(path)
    first = next(lines, None)
    if first is None:
        raise ShardError(f"{path}: the run has no lines. Give another file.")
    num_fields = next((n for n in _LAYOUTS if _split(first[1], n)), None)
    if num_fields is None:
        raise _malformed(path, *first)
    layout = _LAYOUTS[num_fields]

    def rows() -> Iterator[tuple[int, Sequence[Any]]]:
        for number, line in itertools.chain([first], lines):
            fields = _split(line, num_fields)
            if fields is None:
                raise _malformed(path, number, line)
            yield number, [fields[position] for position in layout.values()]

    return spool_rows(path, {role: role for role in layout}, rows(), spool)


def _split(line: str, num_fields: int) -> list[str] | None:
    """Return the fields of a line, or None if it has another number of them."""
    fields = line.split("\t")
    if len(fields) != num_fields:
        fields = line.split()
    return fields if len(fields) == num_fields else None


def _malformed(path: str, number: int, line: str) -> ShardError:
    return ShardError(
        f"{path}:{number}: expected `query_id Q0 doc_id rank score tag` or `query_id doc_id rank`, "
        f"found `{line.strip()[:80]}`. Correct the line; a table of pairs with named columns is "
        "read by `import pairs`."
    )
