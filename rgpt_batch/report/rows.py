"""What stands in the scored rows: counts, distributions, examples.

Everything is aggregated by DuckDB, so that memory does not grow with the number of rows. Scores are
counted in cells of 0.001 nats, token counts one by one.
"""

from __future__ import annotations

import glob
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from rgpt_batch.output.store import CommittedFile
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import RejectionReason, WorkUnit

SCORE_CELL = 0.001
NUM_EXAMPLES = 3

REASONS: dict[str, str] = {
    RejectionReason.NULL_QUERY: "The query is null.",
    RejectionReason.NULL_DOCUMENT: "The document is null.",
    RejectionReason.EMPTY_QUERY: "The query is empty or blank, or holds no token.",
    RejectionReason.QUERY_TOO_LONG: "The query alone does not fit the prompt.",
    RejectionReason.NO_CONTEXT: "Template and document give no token.",
    RejectionReason.INVALID_TEXT: "A text or an id is not UTF-8.",
    RejectionReason.TEXT_TOO_LARGE: "A text is longer than 16 Mi characters.",
    RejectionReason.UNREADABLE: "The row stands on a damaged page of its input file.",
    RejectionReason.ENGINE_CRASH: "The engine died or failed with this row alone, twice.",
}

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """How often each value occurs.

    Attributes:
        values: Shape (n,), ascending; where a cell is a range, its lower end.
        counts: Shape (n,), all above 0.
        cell: Width of a cell; 0 where values are exact.
        mean: Of the values themselves.
    """

    values: Values
    counts: Counts
    cell: float
    mean: float

    @property
    def num_rows(self) -> int:
        """How many rows have a value."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Return the smallest value that so many rows do not exceed, to half a cell."""
        index = int(np.searchsorted(self.counts.cumsum(), share * self.num_rows - 1e-9))
        return float(self.values[min(index, len(self.values) - 1)] + self.cell / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A row, and where it stands in the input."""

    query_id: str | None
    doc_id: str | None
    source_file: str
    source_row: int
    num_document_tokens: int | None
    num_dropped_document_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRows:
    """The rows that were rejected for one reason; the first ones are given as examples."""

    reason: str
    description: str
    num_rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowFacts:
    """The committed rows in figures.

    Attributes:
        scores: See Identity.score_meaning; None where no row has a score.
        query_tokens: Per scored row.
        document_tokens: Per scored row, as they stand in the prompt.
        text_tokens: Query and document together: the prompt without the template.
        num_dropped_document_tokens: Cut from all documents together.
        truncated: The rows that lost the most, worst first.
        rejected: Most frequent reason first.
    """

    num_rows: int
    num_scored: int
    num_queries: int
    scores: Distribution | None
    query_tokens: Distribution | None
    document_tokens: Distribution | None
    text_tokens: Distribution | None
    num_truncated: int
    num_document_tokens: int
    num_dropped_document_tokens: int
    truncated: tuple[Example, ...]
    rejected: tuple[RejectedRows, ...]

    @property
    def num_rejected(self) -> int:
        """How many rows have no score."""
        return self.num_rows - self.num_scored

    @property
    def rejected_fraction(self) -> float:
        """Share of the rows that have no score."""
        return self.num_rejected / max(1, self.num_rows)

    @property
    def truncated_fraction(self) -> float:
        """Share of the rows whose document is cut."""
        return self.num_truncated / max(1, self.num_rows)


def row_facts(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[CommittedFile],
    manifest: Manifest,
) -> RowFacts:
    """Read the columns of all committed files once or twice each.

    Args:
        connection: See database.open_database.
        files: At least one, of units of the manifest.
        manifest: Tells where rows come from.
    """
    rows = _Rows(connection, files, manifest)
    num_rows, num_scored, num_queries, num_truncated, num_kept, num_dropped, mean = rows.select(
        "SELECT count(*), count(score), count(DISTINCT query_id), "
        "count(*) FILTER (num_dropped_document_tokens > 0), "
        "coalesce(sum(num_document_tokens), 0)::BIGINT, "
        "coalesce(sum(num_dropped_document_tokens), 0)::BIGINT, favg(score) FROM rows"
    )[0]
    scores = f"floor(score::DOUBLE / {SCORE_CELL}) * {SCORE_CELL}"
    return RowFacts(
        num_rows=num_rows,
        num_scored=num_scored,
        num_queries=num_queries,
        scores=rows.distribution(scores, cell=SCORE_CELL, mean=mean),
        query_tokens=rows.distribution("num_query_tokens"),
        document_tokens=rows.distribution("num_document_tokens"),
        text_tokens=rows.distribution("num_query_tokens + num_document_tokens"),
        num_truncated=num_truncated,
        num_document_tokens=num_kept,
        num_dropped_document_tokens=num_dropped,
        truncated=tuple(rows.most_truncated()),
        rejected=tuple(rows.rejected()),
    )


class _Rows:
    """All rows of the committed files, as the table `rows` of its statements."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        files: Sequence[CommittedFile],
        manifest: Manifest,
    ) -> None:
        self._connection = connection
        # It would keep something of every file, outside of the database's memory limit.
        connection.execute("SET enable_external_file_cache = false")
        self._files = [glob.escape(file.path) for file in files]
        units = {unit.unit_id: unit for unit in manifest.units}
        self._units = {os.path.basename(file.path): units[file.unit_id] for file in files}
        # Rows that were clustered say themselves where they came from.
        self._has_source = manifest.identity.written.source

    def select(self, statement: str) -> list[tuple[Any, ...]]:
        source = (
            "WITH rows AS (SELECT *, (filename, file_row_number) AS place FROM "
            "read_parquet($files, hive_partitioning = false, filename = true, "
            "file_row_number = true)) "
        )
        return self._connection.execute(source + statement, {"files": self._files}).fetchall()

    def distribution(
        self, value: str, *, cell: float = 0.0, mean: float | None = None
    ) -> Distribution | None:
        found = self.select(
            f"SELECT ({value})::DOUBLE AS value, count(*) FROM rows WHERE score IS NOT NULL "
            "GROUP BY value ORDER BY value"
        )
        if not found:
            return None
        values = np.array([value for value, _ in found])
        counts = np.array([count for _, count in found])
        if mean is None:
            mean = float(values @ counts / counts.sum())
        return Distribution(values=values, counts=counts, cell=cell, mean=mean)

    def most_truncated(self) -> Iterator[Example]:
        for (row,) in self.select(
            f"SELECT {self._wanted} FROM rows WHERE num_dropped_document_tokens > 0 "
            f"ORDER BY num_dropped_document_tokens DESC, place LIMIT {NUM_EXAMPLES}"
        ):
            yield self._example(row)

    def rejected(self) -> Iterator[RejectedRows]:
        for reason, count, first in self.select(
            "SELECT rejection, count(*) AS num_rows, "
            f"arg_min({self._wanted}, place, {NUM_EXAMPLES}) FROM rows WHERE rejection IS NOT NULL "
            "GROUP BY rejection ORDER BY num_rows DESC, rejection"
        ):
            yield RejectedRows(
                reason=reason,
                description=REASONS.get(reason, ""),
                num_rows=count,
                examples=tuple(map(self._example, first)),
            )

    def _example(self, row: dict[str, Any]) -> Example:
        unit = self._units[os.path.basename(row.pop("filename"))]
        place = dict(zip(_SOURCE, _source(unit, row.pop("file_row_number")), strict=True))
        return Example(**{**place, **row})

    @property
    def _wanted(self) -> str:
        """The SQL of an example."""
        names = (*_EXAMPLE, *(_SOURCE if self._has_source else ()))
        return "{" + ", ".join(f"'{name}': {name}" for name in names) + "}"


_EXAMPLE = (
    "query_id",
    "doc_id",
    "num_document_tokens",
    "num_dropped_document_tokens",
    "filename",
    "file_row_number",
)
_SOURCE = ("source_file", "source_row")


def _source(unit: WorkUnit, row: int) -> tuple[str, int]:
    """Find the input row of a row of the unit's file: both have the same order."""
    ends = list(accumulate(segment.num_rows for segment in unit.segments))
    index = bisect_right(ends, row)
    segment = unit.segments[index]
    return segment.path, segment.first_row + row - (ends[index] - segment.num_rows)
