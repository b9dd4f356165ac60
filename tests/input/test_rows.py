"""Files that DuckDB cannot read, or not where they are, give the same rows as any others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.config.options import InputConfig
from rgpt_batch.database import open_database
from rgpt_batch.errors import ShardError
from rgpt_batch.importing.import_pairs import import_pairs
from rgpt_batch.importing.sources.pairs import PairSource
from rgpt_batch.input.inspect import inspect_shard
from rgpt_batch.input.rows import database_source, read_schema
from rgpt_batch.ranking.rank import rank

NUM_ROWS = 3000
_LZ4_RAW, _HADOOP_LZ4 = b"\x15\x0e", b"\x15\x0a"


def _columns() -> dict[str, Any]:
    rows = range(NUM_ROWS)
    return {
        "query_id": pa.array([i // 10 for i in rows], pa.int64()),
        "doc_id": pa.array(rows, pa.int32()),
        "query": [f"query {i // 10}" for i in rows],
        "document": [f"document {i} of many" for i in rows],
        "score": pa.array([i * 37 % 101 - 50 for i in rows], pa.int16()),
    }


def _write_hadoop_lz4(path: Path, columns: Mapping[str, Any]) -> None:
    """Write with the older of Parquet's two codecs called LZ4, as parquet-cpp before 1.5 did."""
    pq.write_table(pa.table(dict(columns)), path, compression="lz4")
    content = path.read_bytes()
    for name in columns:
        # In the footer the codec follows the path: a list of one string.
        field = b"\x19\x18" + bytes([len(name)]) + name.encode()
        assert content.count(field + _LZ4_RAW) == 1
        content = content.replace(field + _LZ4_RAW, field + _HADOOP_LZ4)
    path.write_bytes(content)


def _write_split_bytes(path: Path, columns: Mapping[str, Any]) -> None:
    table = pa.table(dict(columns))
    encodings = {f.name: "BYTE_STREAM_SPLIT" for f in table.schema if pa.types.is_integer(f.type)}
    pq.write_table(table, path, use_dictionary=False, column_encoding=encodings)


WRITERS = {"Hadoop's LZ4": _write_hadoop_lz4, "BYTE_STREAM_SPLIT of integers": _write_split_bytes}


@pytest.fixture(params=WRITERS)
def pairs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of two files, one of which DuckDB cannot read; and beside it a usual one."""
    columns = _columns()
    pq.write_table(pa.table(columns), tmp_path / "usual.parquet")
    folder = tmp_path / "pairs"
    folder.mkdir()
    halves = {name: pa.array(column) for name, column in columns.items()}
    half = NUM_ROWS // 2
    pq.write_table(pa.table({n: c[:half] for n, c in halves.items()}), folder / "a.parquet")
    WRITERS[request.param](folder / "b.parquet", {n: c[half:] for n, c in halves.items()})
    return folder


def test_file_is_one_that_duckdb_cannot_read(pairs: Path) -> None:
    with (
        open_database(0.5) as connection,
        pytest.raises(duckdb.Error, match=r"LZ4|BYTE_STREAM_SPLIT"),
    ):
        connection.execute(f"SELECT sum(doc_id + 1) FROM '{pairs}/b.parquet'").fetchall()


def test_rows_are_the_same_and_only_the_odd_file_is_copied(pairs: Path, tmp_path: Path) -> None:
    files = sorted(map(str, pairs.iterdir()))
    schema = read_schema(files[0])
    with open_database(0.5) as connection:
        source = database_source(connection, "rows", files, schema)
        found = connection.execute(f"SELECT * FROM {source} ORDER BY doc_id").to_arrow_table()
        assert found.cast(schema).equals(pq.read_table(tmp_path / "usual.parquet").cast(schema))
        assert ("a.parquet" in source, "b.parquet" in source) == (True, False)
        source = database_source(connection, "copy", files[:1], schema)
        assert "copy" not in source


def test_columns_that_are_not_asked_for_do_not_matter(pairs: Path) -> None:
    files = sorted(map(str, pairs.iterdir()))
    schema = pa.schema([read_schema(files[0]).field("document")])
    with open_database(0.5) as connection:
        source = database_source(connection, "rows", files, schema)
        assert connection.execute(f"SELECT count(document) FROM {source}").fetchall() == [
            (NUM_ROWS,)
        ]


def test_every_command_reads_such_files(pairs: Path, tmp_path: Path) -> None:
    for given, name in ((pairs, "odd"), (tmp_path / "usual.parquet", "usual")):
        source = PairSource(pairs=given, queries=None, corpus=None)
        import_pairs(source, tmp_path / f"{name}-pairs")
        rank(given, tmp_path / f"{name}.run", top_k=5)
    odd, usual = (pq.read_table(tmp_path / f"{name}-pairs") for name in ("odd", "usual"))
    assert (odd.num_rows, odd.equals(usual)) == (NUM_ROWS, True)
    assert (tmp_path / "odd.run").read_bytes() == (tmp_path / "usual.run").read_bytes()
    assert inspect_shard(str(pairs / "b.parquet"), InputConfig(), ()).num_rows == NUM_ROWS // 2


def test_column_whose_name_is_not_utf8_is_an_error_in_every_command(tmp_path: Path) -> None:
    columns = {**_columns(), "name": _columns()["query"]}
    path, arrow = tmp_path / "pairs.parquet", tmp_path / "pairs.arrow"
    pq.write_table(pa.table(columns), path, store_schema=False)
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_stream(sink, pa.table(columns).schema):
        pass
    for file in (path, arrow):
        file.write_bytes(file.read_bytes().replace(b"name", b"n\xe9me"))
    for read in (
        lambda: inspect_shard(str(path), InputConfig(), ()),
        lambda: import_pairs(PairSource(pairs=path, queries=None, corpus=None), tmp_path / "out"),
        lambda: import_pairs(PairSource(pairs=arrow, queries=None, corpus=None), tmp_path / "out"),
        lambda: rank(path, tmp_path / "run", top_k=5),
    ):
        with pytest.raises(ShardError, match=r"pairs\..*: not a readable .*can't decode byte 0xe9"):
            read()
