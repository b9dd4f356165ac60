"""The output folder: sizes of shards and row groups, and that it appears whole or not at all."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.config.options import UnitsConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.shards import document_groups, row_groups, write_shards
from tests.importing.files import read_rows, run_import, trec_source, write_run, write_tsv


def _batches(num_rows: int, batch_rows: int, text: str = "x") -> list[pa.RecordBatch]:
    table = pa.table({"doc_id": [str(i) for i in range(num_rows)], "document": [text] * num_rows})
    return table.to_batches(max_chunksize=batch_rows)


@pytest.mark.parametrize(
    ("num_rows", "rows_per_shard", "expected"),
    [
        (25_000, 100_000, [[10_000, 10_000, 5_000]]),
        (25_000, 12_000, [[10_000, 2_000], [10_000, 2_000], [1_000]]),
        (24_000, 12_000, [[10_000, 2_000], [10_000, 2_000]]),
        (5, 2, [[2], [2], [1]]),
        (1, 100, [[1]]),
    ],
)
@pytest.mark.parametrize("batch_rows", [2048, 30_000])
def test_shards_have_the_rows_that_are_asked_for(
    tmp_path: Path, num_rows: int, rows_per_shard: int, batch_rows: int, expected: list[list[int]]
) -> None:
    groups = row_groups(_batches(num_rows, batch_rows), rows_per_shard)
    assert write_shards(groups, tmp_path, rows_per_shard) == len(expected)
    shards = [pq.read_metadata(path) for path in sorted(tmp_path.iterdir())]
    sizes = [[s.row_group(i).num_rows for i in range(s.num_row_groups)] for s in shards]
    assert sizes == expected
    assert {s.row_group(0).column(0).compression for s in shards} == {"ZSTD"}
    assert [row["doc_id"] for row in read_rows(tmp_path)] == [str(i) for i in range(num_rows)]


def test_row_groups_of_long_documents_have_fewer_rows(tmp_path: Path) -> None:
    batches = _batches(300, 20, text="long " * 100_000)
    write_shards(row_groups(batches, 1000), tmp_path, 1000)
    (path,) = tmp_path.iterdir()
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sum(sizes) == 300
    assert max(sizes) == 80


def test_output_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "pairs"
    output.mkdir()
    (output / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        run_import(trec_source(tmp_path), output)
    assert [path.name for path in output.iterdir()] == ["mine"]


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("kept")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        run_import(trec_source(tmp_path), tmp_path / "pairs")


def test_empty_folder_link_and_missing_parents_are_fine(tmp_path: Path) -> None:
    source = trec_source(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for name in ("link", "new/deep/pairs"):
        assert run_import(source, tmp_path / name).num_shards == 1
        assert len(read_rows(tmp_path / name)) == 3


def test_output_obeys_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        run_import(trec_source(tmp_path), tmp_path / "pairs")
    finally:
        os.umask(previous)
    assert (tmp_path / "pairs").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "pairs" / "pairs-00000.parquet").stat().st_mode & 0o777 == 0o644


def test_nothing_but_the_output_is_left_behind(tmp_path: Path) -> None:
    source = trec_source(tmp_path)
    (tmp_path / "temp").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    run_import(source, tmp_path / "pairs", temp_folder=str(tmp_path / "temp"))
    assert {path.name for path in tmp_path.iterdir()} == before | {"pairs"}
    assert list((tmp_path / "temp").iterdir()) == []


def test_temp_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        run_import(trec_source(tmp_path), tmp_path / "pairs", temp_folder=str(tmp_path / "nowhere"))


def test_little_memory_gives_the_same_rows(tmp_path: Path) -> None:
    texts = [(f"d{i}", f"text {i} " * 40) for i in range(2_000)]
    ids = [
        (f"q{query}", f"d{doc}", doc + 1, -float(doc))
        for query in range(40)
        for doc in range(2_000)
    ]
    source = trec_source(
        tmp_path,
        run=write_run(tmp_path / "run", ids),
        queries=write_tsv(tmp_path / "q.tsv", [(f"q{i}", f"query {i}") for i in range(40)]),
        corpus=write_tsv(tmp_path / "c.tsv", texts),
    )
    run_import(source, tmp_path / "large", memory_gib=2)
    run_import(source, tmp_path / "small", memory_gib=0.25)
    assert read_rows(tmp_path / "small") == read_rows(tmp_path / "large")


@pytest.mark.parametrize("batch_rows", [1, 7, 1000])
@pytest.mark.parametrize("num_documents", [1, 12, 120])
@pytest.mark.parametrize("max_bytes", [2000, 2**26])
def test_row_groups_end_where_documents_do(
    batch_rows: int, num_documents: int, max_bytes: int
) -> None:
    units = UnitsConfig(max_rows=80, max_bytes=max_bytes)
    documents = sorted(str(i % num_documents) for i in range(400))
    # Nulls are a document of their own.
    documents_or_null = [None if d == "3" else d for d in documents]
    table = pa.table({"document": documents_or_null, "row": range(400)})
    batches = table.to_batches(max_chunksize=batch_rows)
    groups = list(document_groups(batches, "document", units))
    assert pa.concat_tables(groups).equals(table)
    for before, after in pairwise(groups):
        if before["document"][-1].as_py() == after["document"][0].as_py():
            # Only a document that fills a unit is cut.
            assert before.num_rows >= 80 or before.nbytes >= max_bytes // 2
    largest = 400 // num_documents + 1
    assert max(group.num_rows for group in groups) <= 10 + max(largest, 80 + batch_rows)
    if num_documents == 120:
        assert len({group["document"][0].as_py() for group in groups}) == len(groups)
