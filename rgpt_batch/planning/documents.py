"""How often documents repeat: over the whole input, and within units, where they are computed once.

Documents are told apart by their ids, a column that is small beside the texts. It is read once, and
counted by DuckDB, which spills to disk what does not fit into memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rgpt_batch.config.options import JobConfig
from rgpt_batch.database import open_database
from rgpt_batch.errors import RgptBatchError, ShardError
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import as_bytes, read_segment
from rgpt_batch.planning.estimate import TokenSample
from rgpt_batch.records import WorkUnit

_MEMORY_GIB = 1.0
# A sixth of the documents' tokens: below, a second copy of the input is not worth it.
_WORTH = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentCounts:
    """How often documents repeat, by their ids.

    Attributes:
        num_rows: Rows with an id.
        num_documents: Different documents of the input.
        num_in_units: Different documents of each unit, summed up: so many are computed.
    """

    num_rows: int
    num_documents: int
    num_in_units: int

    @property
    def pays(self) -> bool:
        """Whether clustering by document saves enough to be worth a second copy of the input."""
        return self.num_in_units >= _WORTH * self.num_documents > 0

    @property
    def share_of_documents(self) -> float:
        """Documents to compute after clustering, as a share of those without."""
        return self.num_documents / max(1, self.num_in_units)

    def share_of_tokens(self, tokens: TokenSample) -> float:
        """Tokens to compute after clustering, as a share of those without; 0 to 1.

        All documents count as equally long.
        """
        context = tokens.mean_prompt_tokens - tokens.mean_query_tokens
        queries = self.num_rows * tokens.mean_query_tokens
        clustered = self.num_documents * context + queries
        return clustered / max(1.0, self.num_in_units * context + queries)

    def __str__(self) -> str:
        over_all = self.num_rows / max(1, self.num_documents)
        within = self.num_rows / max(1, self.num_in_units)
        return (
            f"documents repeat {over_all:,.3g} times over the input, {within:,.3g} times within "
            "units"
        )


def shares_documents(config: JobConfig) -> bool:
    """Whether a job's engine may compute a document once for several queries.

    The fake engine counts as if it did: a dry run plans what the real one does.
    """
    return (
        config.score.is_likelihood
        and config.engine.method in ("auto", "query-rows", "token-ids", "fake")
        and config.engine.prefix_caching is not False
    )


def count_documents(units: Sequence[WorkUnit], columns: Columns) -> DocumentCounts:
    """Read the ids of all documents, and count.

    Raises:
        ShardError, StorageError: A shard cannot be read.
        ConfigError: The disk is too small.
    """
    schema = pa.schema([("unit", pa.int32()), ("id", pa.large_binary())])
    errors: list[RgptBatchError] = []
    reader = pa.RecordBatchReader.from_batches(schema, _ids(units, columns, schema, errors))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="rgpt-batch-") as folder,
            open_database(_MEMORY_GIB, folder, remedy="Make room there.") as connection,
        ):
            connection.register("ids", reader)
            connection.execute(
                "CREATE TEMP TABLE counted AS SELECT unit, hash(id) AS document, "
                "count(*) AS num_rows FROM ids WHERE id IS NOT NULL GROUP BY ALL"
            )
            num_rows, num_documents, num_in_units = connection.execute(
                "SELECT coalesce(sum(num_rows), 0), count(*), coalesce(sum(num_units), 0) FROM ("
                "SELECT sum(num_rows) AS num_rows, count(*) AS num_units FROM counted "
                "GROUP BY document)"
            ).fetchall()[0]
    except ShardError as error:
        # DuckDB reports what reading has raised as an error of its own.
        raise errors[0] if errors else error from error
    return DocumentCounts(
        num_rows=int(num_rows), num_documents=num_documents, num_in_units=int(num_in_units)
    )


def _ids(
    units: Sequence[WorkUnit],
    columns: Columns,
    schema: pa.Schema,
    errors: list[RgptBatchError],
) -> Iterator[pa.RecordBatch]:
    try:
        for index, unit in enumerate(units):
            for segment in unit.segments:
                for batch, _ in read_segment(segment, [columns.doc_id]):
                    if isinstance(batch, pa.RecordBatch):
                        ids = as_bytes(batch[columns.doc_id])
                        number = pa.repeat(pa.scalar(index, pa.int32()), batch.num_rows)
                        yield pa.record_batch([number, ids], schema)
    except RgptBatchError as error:
        errors.append(error)
        raise
