"""Tables of texts in an object store: a real server of S3 on this machine. They take 10 s."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch import run_job
from rgpt_batch.commands.importing import import_group
from rgpt_batch.errors import ConfigError, ShardError, StorageError
from rgpt_batch.importing.joined import TextTables
from rgpt_batch.importing.readers.relations import DOCUMENTS
from rgpt_batch.importing.readers.tables import open_parquet
from rgpt_batch.importing.sources.pairs import PairSource
from tests.importing.files import pair_source, read_rows, run_import, write_parquet
from tests.jobs import fake_config, read_output
from tests.servers.faulty_proxy import Fault, FaultyProxy, Request, always

CANDIDATES, QUERIES, CORPUS = "candidates.parquet", "queries.parquet", "corpus"


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Folder of candidates, queries and a corpus of two files, one of which has titles."""
    pairs = [(f"q{i % 4}", f"d{(i * 7) % 30}", float(i)) for i in range(60)]
    query_ids, doc_ids, scores = zip(*pairs, strict=True)
    folder = tmp_path / "tables"
    dictionary = pa.array(query_ids).dictionary_encode()
    write_parquet(folder / CANDIDATES, {"qid": dictionary, "docno": doc_ids, "score": scores})
    texts = {"_id": [f"q{i}" for i in range(4)], "text": [f"what is {i}" for i in range(4)]}
    write_parquet(folder / QUERIES, texts)
    for low in (0, 15):
        rows = range(low, low + 15)
        columns: dict[str, Any] = {
            "text": [f"is told {'again and ' * i}" for i in rows],
            "_id": [f"d{i}" for i in rows],
        }
        if low:
            columns["title"] = [f"Number {i}" for i in rows]
        write_parquet(folder / CORPUS / f"{low}.parquet", columns)
    return folder


@pytest.fixture
def remote(tables: Path, bucket: str, s3: Any) -> str:
    """The URI of a copy of the folder."""
    for path in tables.rglob("*.parquet"):
        s3.upload_file(str(path), bucket, f"in/{path.relative_to(tables)}")
    return f"s3://{bucket}/in"


@pytest.fixture
def score_tables(tiny_tokenizer: Path, tmp_path: Path) -> Any:
    def run(where: str | Path, name: str) -> pa.Table:
        config = fake_config(tiny_tokenizer, "output.pass_through=[first_stage_score]")
        texts = TextTables(queries=f"{where}/{QUERIES}", documents=f"{where}/{CORPUS}")
        inputs = [f"{where}/{CANDIDATES}"]
        run_job(config, inputs, str(tmp_path / name), tables=texts, quiet=True)
        return read_output(tmp_path / name)

    return run


def test_scores_are_those_of_local_copies(score_tables: Any, tables: Path, remote: str) -> None:
    local = score_tables(tables, "local")
    assert local.num_rows == 60
    assert local["score"].null_count == 0
    assert score_tables(remote, "remote").equals(local)


def test_pairs_are_those_of_local_copies(tables: Path, remote: str, tmp_path: Path) -> None:
    run_import(
        pair_source(tables / CANDIDATES, tables / QUERIES, tables / CORPUS), tmp_path / "local"
    )
    arguments = ["pairs", f"{remote}/{CANDIDATES}", "--queries", f"{remote}/{QUERIES}"]
    arguments += ["--corpus", f"{remote}/{CORPUS}/*.parquet", "--output", str(tmp_path / "remote")]
    result = CliRunner().invoke(import_group, arguments, standalone_mode=False)
    assert result.return_value == 0, result.exception
    assert read_rows(tmp_path / "remote") == read_rows(tmp_path / "local")


def test_local_run_is_joined_with_tables_in_a_store(
    tables: Path, remote: str, tmp_path: Path
) -> None:
    run = tmp_path / "run.tsv"
    run.write_text("q1\td3\t1\nq2\td20\t1\n", encoding="utf-8")
    arguments = ["msmarco", "--run", str(run), "--queries", f"{remote}/{QUERIES}"]
    arguments += ["--collection", f"{remote}/{CORPUS}", "--output", str(tmp_path / "pairs")]
    result = CliRunner().invoke(import_group, arguments, standalone_mode=False)
    assert result.return_value == 0, result.exception
    found = [(row["query"], row["document"][:9]) for row in read_rows(tmp_path / "pairs")]
    assert found == [("what is 1", "is told a"), ("what is 2", "Number 20")]


def test_table_that_is_not_there_is_named(score_tables: Any, remote: str) -> None:
    with pytest.raises(ConfigError, match=f"{remote}-not/{CANDIDATES}: no such object"):
        score_tables(f"{remote}-not", "scored")


def test_table_of_another_format_is_refused_with_what_to_do(
    bucket: str, s3: Any, remote: str, tmp_path: Path
) -> None:
    s3.put_object(Bucket=bucket, Key="in/queries.tsv", Body=b"q1\twhat is 1\n")
    source = PairSource(
        pairs=f"{remote}/{CANDIDATES}",
        queries=f"{remote}/queries.tsv",
        corpus=f"{remote}/{CORPUS}",
    )
    with pytest.raises(
        ShardError, match=r"in/queries\.tsv: not a readable Parquet.*from this mach"
    ):
        run_import(source, tmp_path / "pairs")


def test_store_that_fails_while_texts_are_read_is_not_taken_for_damage(
    proxy: FaultyProxy, remote: str, score_tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.choose = always("GET", "/in/corpus/15", Fault.ERROR_500)
    with pytest.raises(StorageError, match=r"corpus/15\.parquet: the store fails"):
        score_tables(remote, "scored")


def test_files_of_a_table_are_asked_for_at_once(
    proxy: FaultyProxy, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "60s")
    asked = {name: threading.Event() for name in ("/0.parquet", "/15.parquet")}

    def wait(request: Request) -> Fault | None:
        """Answer for each of the two files only when the other one was asked for, too."""
        for name, event in asked.items():
            if request.path.endswith(name):
                event.set()
                were_asked = all(other.wait(30) for other in asked.values())
                return None if were_asked else Fault.DENY
        return None

    proxy.choose = wait
    table = open_parquet([f"{remote}/{CORPUS}/"], DOCUMENTS)
    assert len(table.paths) == 2


def test_texts_that_are_larger_than_the_memory_are_joined(
    bucket: str, s3: Any, tmp_path: Path, remote: str
) -> None:
    # 600 MB of texts, of which Parquet's dictionary makes a small file; 256 MiB of memory.
    num_rows = 60_000
    texts = [f"{i} " + "x" * 10_000 for i in range(50)]
    indices = pa.array([i % 50 for i in range(num_rows)], pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, texts)
    table = pa.table({"_id": [f"d{i}" for i in range(num_rows)], "text": column})
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=10_000)
    s3.upload_file(str(tmp_path / "large.parquet"), bucket, "large.parquet")
    source = PairSource(
        pairs=f"{remote}/{CANDIDATES}",
        queries=f"{remote}/{QUERIES}",
        corpus=f"s3://{bucket}/large.parquet",
    )
    run_import(source, tmp_path / "pairs", memory_gib=0.25)
    assert len(read_rows(tmp_path / "pairs")) == 60
