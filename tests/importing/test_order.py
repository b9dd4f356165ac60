"""Shards by document instead of by query."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.importing.files import (
    import_rows,
    read_rows,
    run_import,
    trec_source,
    write_run,
    write_tsv,
)


def test_rows_by_document_are_the_same_rows(tmp_path: Path) -> None:
    source = trec_source(tmp_path)
    by_query = import_rows(source, tmp_path / "by-query")
    by_document = import_rows(source, tmp_path / "by-document", order="document")
    assert by_document != by_query
    assert by_document == sorted(by_query, key=lambda row: (row["doc_id"], row["query_id"]))


def test_shards_by_document_hold_a_repeated_text_once(tmp_path: Path) -> None:
    # More text than Parquet's dictionaries and a page's compression can keep in view.
    chooser = random.Random(0)
    corpus = [(f"d{i:04}", chooser.randbytes(1500).hex()) for i in range(1000)]
    source = trec_source(
        tmp_path,
        run=write_run(
            tmp_path / "run", ((f"q{q}", d, 1, 0.0) for q in range(8) for d, _ in corpus)
        ),
        queries=write_tsv(tmp_path / "q.tsv", [(f"q{q}", f"query {q}") for q in range(8)]),
        corpus=write_tsv(tmp_path / "c.tsv", corpus),
    )
    sizes = {}
    for order in ("query", "document"):
        run_import(source, tmp_path / order, order=order)
        sizes[order] = sum(path.stat().st_size for path in (tmp_path / order).iterdir())
    assert sizes["document"] < sum(len(text) for _, text in corpus)
    assert sizes["document"] < sizes["query"] / 4


@pytest.mark.parametrize("order", ["query", "document"])
def test_no_order_loses_a_row(tmp_path: Path, order: str) -> None:
    source = trec_source(tmp_path)
    summary = run_import(source, tmp_path / "pairs", order=order, rows_per_shard=2)
    assert (summary.num_pairs, summary.num_shards) == (3, 2)
    rows = read_rows(tmp_path / "pairs")
    assert sorted((row["query_id"], row["doc_id"]) for row in rows) == [
        ("q1", "d1"),
        ("q1", "d3"),
        ("q2", "d2"),
    ]
    assert pq.read_schema(tmp_path / "pairs" / "pairs-00000.parquet").names[:4] == [
        "query_id",
        "query",
        "doc_id",
        "document",
    ]
