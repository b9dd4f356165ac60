"""What a scored file looks like."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.output.score_file import Footer, serialize

FOOTER = Footer(
    fingerprint="f" * 16,
    unit_id="000000",
    attempt="attempt",
    num_rows=1000,
    num_rejected={},
    model="m",
    protocol="card",
    engine="fake",
    versions={},
)


def test_pages_carry_checksums() -> None:
    content = bytearray(serialize(pa.table({"doc_id": [f"d{i}" for i in range(1000)]}), FOOTER))
    chunk = pq.read_metadata(pa.BufferReader(bytes(content))).row_group(0).column(0)
    content[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    with pytest.raises(OSError):
        pq.read_table(pa.BufferReader(bytes(content)), page_checksum_verification=True)
