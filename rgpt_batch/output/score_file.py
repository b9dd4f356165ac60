"""Parquet out: the schema of scored files, their footers, and how both are checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from rgpt_batch.config.prompts import ScoreKind
from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError
from rgpt_batch.input.footers import read_error
from rgpt_batch.input.pairs import SOURCE_FILE, SOURCE_ROW
from rgpt_batch.records import Rejection, RowResult, Score
from rgpt_batch.scoring.pair_hash import NUM_BYTES
from rgpt_batch.storage.files import open_source

TOKEN_LOGPROBS = "query_token_logprobs"
PAIR_HASH = "pair_hash"

SCORE_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string()),
        pa.field("doc_id", pa.string()),
        # Query likelihood: mean log-probability of the query's tokens, nats, at most 0.
        pa.field("score", pa.float32()),
        pa.field("sum_logprob", pa.float32()),
        pa.field("num_query_tokens", pa.int32()),
        pa.field("num_document_tokens", pa.int32()),
        pa.field("num_dropped_document_tokens", pa.int32()),
        # Null where the row has a score.
        pa.field("rejection", pa.string()),
    ]
)

# Beside the others where the model judges pairs; sum_logprob is null there.
LABEL_SCHEMA = pa.schema(
    [
        # The logit of relevant, less that of not relevant where the model has such a label.
        pa.field("logit", pa.float32()),
        pa.field("num_dropped_query_tokens", pa.int32()),
    ]
)

_FOOTER_KEY = b"rgpt_batch"


class Footer(BaseModel):
    """What a scored file says of itself.

    Attributes:
        attempt: Differs between two attempts at the same unit.
        num_rejected: Rejected rows per reason.
        num_reused: Rows whose score was copied from an earlier job.
        versions: Package name → version, of the worker that wrote the file.
    """

    # What another version adds is no reason to doubt the rest: the fingerprint covers the scores.
    model_config = ConfigDict(extra="ignore", frozen=True)

    fingerprint: str
    unit_id: str
    attempt: str
    num_rows: int
    num_rejected: dict[str, int]
    num_reused: int = 0
    model: str
    protocol: str
    engine: str
    score_kind: ScoreKind = "query-likelihood"
    versions: dict[str, str]


def check_pass_through(names: Sequence[str], *, labels: bool) -> None:
    """Raise ConfigError where a passed-through column would hide one of ours.

    Args:
        names: Of the columns.
        labels: Whether the output has the columns of a model that judges pairs.
    """
    taken = {*SCORE_SCHEMA.names, TOKEN_LOGPROBS, PAIR_HASH, SOURCE_FILE, SOURCE_ROW}
    if labels:
        taken.update(LABEL_SCHEMA.names)
    if clash := sorted(taken.intersection(names)):
        raise ConfigError(
            f"output.pass_through: {', '.join(clash)} would collide with an output column. "
            "Rename the input column, or leave it out."
        )
    if len(set(names)) < len(names):
        raise ConfigError("output.pass_through: a column is named twice.")


def to_table(
    columns: Sequence[pa.RecordBatch],
    results: Sequence[RowResult],
    *,
    logprobs: bool = False,
    hashes: bool = False,
    labels: bool = False,
) -> pa.Table:
    """Build the output rows of a unit: one for every input row, in input order.

    Args:
        columns: Ids and passed-through columns, at least one batch.
        results: One per row.
        logprobs: Add the column query_token_logprobs.
        hashes: Add the column pair_hash, null where the row has no score.
        labels: Add the columns of LABEL_SCHEMA.
    """
    kept = pa.Table.from_batches(columns)
    if kept.num_rows != len(results):
        raise ValueError(f"{len(results)} results for {kept.num_rows} rows")
    scores = [r.outcome if isinstance(r.outcome, Score) else None for r in results]

    def scored(name: str) -> list[Any]:
        return [None if score is None else getattr(score, name) for score in scores]

    values: dict[str, Any] = {
        "query_id": kept["query_id"],
        "doc_id": kept["doc_id"],
        "score": scored("value"),
        "rejection": [
            str(r.outcome.reason) if isinstance(r.outcome, Rejection) else None for r in results
        ],
        **{name: scored(name) for name in SCORE_SCHEMA.names if name in Score.__dataclass_fields__},
    }
    table = pa.table(
        [
            values[field.name]
            if isinstance(values[field.name], pa.ChunkedArray)
            else pa.array(values[field.name], field.type)
            for field in SCORE_SCHEMA
        ],
        schema=SCORE_SCHEMA,
    )
    for field in LABEL_SCHEMA if labels else ():
        table = table.append_column(field, pa.array(scored(field.name), field.type))
    if logprobs:
        lists = [None if r.logprobs is None else r.logprobs.values for r in results]
        table = table.append_column(TOKEN_LOGPROBS, pa.array(lists, pa.list_(pa.float32())))
    if hashes:
        digests = [r.pair_hash if isinstance(r.outcome, Score) else None for r in results]
        table = table.append_column(PAIR_HASH, pa.array(digests, pa.binary(NUM_BYTES)))
    for name in kept.column_names:
        if name not in SCORE_SCHEMA.names:
            table = table.append_column(kept.schema.field(name), kept[name])
    return table


def serialize(table: pa.Table, footer: Footer) -> memoryview:
    """Write a table and its footer as one Parquet file in memory."""
    marked = table.replace_schema_metadata({_FOOTER_KEY: footer.model_dump_json().encode()})
    stream = pa.BufferOutputStream()
    pq.write_table(marked, stream, compression="zstd", write_page_checksum=True)
    return memoryview(stream.getvalue()).cast("B")


def read_footer(path: str) -> tuple[Footer, pq.FileMetaData]:
    """Read what a scored file says of itself.

    Raises:
        ShardError: The file is damaged, or was not written by this program.
        ManifestMismatch: Another version of this program has written it.
        StorageError: The storage fails; the file may be good.
    """
    try:
        metadata = pq.read_metadata(open_source(path))
    except (OSError, MemoryError, pa.ArrowException) as error:
        raise read_error(path, error) from error
    try:
        text = (metadata.metadata or {})[_FOOTER_KEY]
    except KeyError as error:
        raise ShardError(f"{path}: not a scored file of rgpt-batch; it has no footer.") from error
    try:
        return Footer.model_validate_json(text), metadata
    except ValidationError as error:
        raise ManifestMismatch(
            f"{path}: another version of rgpt-batch has written its footer, and this one does not "
            "understand it. Use that version, or another output folder."
        ) from error
