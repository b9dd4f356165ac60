"""What tests of stores write."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch.input.columns import Columns
from rgpt_batch.output import Store
from rgpt_batch.output.success import OutputFile, Success
from rgpt_batch.planning.identity import Identity, PairFiles, WrittenColumns
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import Segment, WorkUnit

TABLE = pa.table({"doc_id": ["d0", "d1"], "score": pa.array([-1.0, -2.0], pa.float32())})
OTHER = pa.table({"doc_id": ["x"], "score": pa.array([-9.0], pa.float32())})


def parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file."""
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream)
    content: bytes = stream.getvalue().to_pybytes()
    return content


FILE, OTHER_FILE = parquet(TABLE), parquet(OTHER)


def manifest(fingerprint: str = "f" * 16, num_units: int = 1) -> Manifest:
    segment = Segment(path="/in/a.parquet", version="1-2", first_row=0, num_rows=2)
    unit = WorkUnit(unit_id="000000", segments=(segment,), num_bytes=10)
    return Manifest(
        fingerprint=fingerprint,
        identity=Identity(
            scoring={"model": "m"},
            columns=Columns(
                query_id="query_id", doc_id="doc_id", query="query", document="document"
            ),
            written=WrittenColumns(query_token_logprobs=False, source=False, pair_hash=False),
            input=PairFiles(files=()),
        ),
        units=(unit,) * num_units,
    )


def success(store: Store) -> Success:
    """Name exactly the files that are there."""
    files = {
        unit_id: OutputFile(
            name=file.name,
            size=file.size,
            sha256="0" * 64,
            num_rows=2,
            num_rejected={},
            fingerprint="f" * 16,
        )
        for unit_id, file in store.committed().items()
    }
    return Success(
        fingerprint="f" * 16,
        num_units=len(files),
        num_rows=2 * len(files),
        num_rejected={},
        files=files,
    )
