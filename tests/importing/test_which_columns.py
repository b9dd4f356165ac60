"""A column counts wherever it appears, and never silently in the place of another."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rgpt_batch.errors import ShardError
from tests.importing.files import (
    beir_source,
    import_rows,
    pair_source,
    trec_source,
    write_beir,
    write_json_lines,
    write_parquet,
)

PAIR = {"qid": "q1", "docno": "d1", "query": "x", "text": "y"}


def _pair(number: int, **further: Any) -> dict[str, Any]:
    return {**PAIR, "docno": f"d{number}", **further}


@pytest.mark.parametrize("line", [0, 99, 100, 250])
def test_json_key_counts_in_whatever_line_it_appears_first(tmp_path: Path, line: int) -> None:
    records = [_pair(i, **({"score": float(i)} if i >= line else {})) for i in range(260)]
    pairs = write_json_lines(tmp_path / "pairs.jsonl", records)
    rows = import_rows(pair_source(pairs), tmp_path / "out")
    found = {row["doc_id"]: row["first_stage_score"] for row in rows}
    assert found == {f"d{i}": float(i) if i >= line else None for i in range(260)}


@pytest.mark.parametrize("line", [99, 100])
def test_title_of_beir_counts_in_whatever_line_it_appears_first(tmp_path: Path, line: int) -> None:
    folder = write_beir(tmp_path / "beir")
    corpus = [
        {"_id": f"d{i}", "text": "body", "title": "T" if i > line else ""} for i in range(110)
    ]
    write_json_lines(
        folder / "corpus.jsonl", [{k: v for k, v in record.items() if v} for record in corpus]
    )
    (folder / "qrels" / "test.tsv").write_text("a\tb\tscore\nq1\td109\t1\nq1\td3\t1\n")
    rows = import_rows(beir_source(folder), tmp_path / "out")
    assert {row["doc_id"]: row["document"] for row in rows} == {"d109": "T body", "d3": "body"}


def test_key_that_changes_what_holds_a_value_is_an_error_with_its_line(tmp_path: Path) -> None:
    records = [_pair(i, score=1.0) for i in range(120)]
    records.append(_pair(120, first_stage_score=2.0))
    pairs = write_json_lines(tmp_path / "pairs.jsonl", records)
    with pytest.raises(ShardError, match=r"pairs\.jsonl:121: 'first_stage_score' holds the"):
        import_rows(pair_source(pairs), tmp_path / "out")


def test_key_that_a_pipe_brings_too_late_is_an_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pairs.jsonl"
    os.mkfifo(pipe)
    lines = [json.dumps(_pair(i, **({"score": 1.0} if i == 150 else {}))) for i in range(160)]

    def feed() -> None:
        with suppress(BrokenPipeError):
            pipe.write_text("\n".join(lines))

    threading.Thread(target=feed, daemon=True).start()
    from rgpt_batch.importing.readers.relations import PAIRS
    from rgpt_batch.importing.readers.spool import Spool
    from rgpt_batch.importing.readers.text import open_json_lines

    with pytest.raises(ShardError, match=r":151: 'score' appears here for the first time"):
        open_json_lines(str(pipe), PAIRS, Spool(tmp_path, lambda message: None))


@pytest.mark.parametrize("titled", ["a", "b"])
def test_parquet_file_may_lack_the_title_that_another_has(tmp_path: Path, titled: str) -> None:
    for name in ("a", "b"):
        columns: dict[str, list[Any]] = {"_id": [f"d-{name}"], "text": [f"text {name}"]}
        # A column that is not read may have any types.
        columns |= {"title": ["T"], "more": [1]} if name == titled else {"more": ["x"]}
        write_parquet(tmp_path / "corpus" / f"{name}.parquet", columns)
    pairs = write_parquet(
        tmp_path / "pairs.parquet", {"qid": ["q"] * 2, "docno": ["d-a", "d-b"], "query": ["x"] * 2}
    )
    rows = import_rows(pair_source(pairs, corpus=tmp_path / "corpus"), tmp_path / "out")
    assert {row["doc_id"]: row["document"] for row in rows} == {
        f"d-{name}": f"T text {name}" if name == titled else f"text {name}" for name in ("a", "b")
    }


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"score": [1.0]}, {"first_stage_score": [1.0]}, r"a\.parquet: column 'score', but in .*b"),
        ({"score": [1.0]}, {"Score": [1.0]}, r"b\.parquet: column 'Score', but in .*'score'"),
        ({"score": [1.0]}, {"score": [1]}, r"b\.parquet: column 'score' is int64, but double in"),
    ],
)
def test_parquet_files_that_call_the_same_thing_otherwise_are_an_error(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    for name, further in (("a", first), ("b", second)):
        columns = {key: [value] for key, value in PAIR.items()} | further
        columns["docno"] = [name]
        write_parquet(tmp_path / "pairs" / f"{name}.parquet", columns)
    with pytest.raises(ShardError, match=message):
        import_rows(pair_source(tmp_path / "pairs"), tmp_path / "out")


def test_arrow_file_may_lack_the_title_that_a_later_one_has(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name, further in (("a", {}), ("b", {"title": ["T"]})):
        table = pa.table({"_id": [f"d-{name}"], "text": [f"text {name}"], **further})
        file = str(corpus / f"{name}.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    pairs = write_parquet(
        tmp_path / "pairs.parquet", {"qid": ["q"] * 2, "docno": ["d-a", "d-b"], "query": ["x"] * 2}
    )
    rows = import_rows(pair_source(pairs, corpus=corpus), tmp_path / "out")
    assert [row["document"] for row in rows] == ["text a", "T text b"]


def test_key_of_beir_goes_before_every_other_id(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    ids = ("doc_id", "pid", "docid", "id")
    corpus = [
        {**dict.fromkeys(ids, "d2"), "_id": "d1", "text": "first"},
        {**dict.fromkeys(ids, "d1"), "_id": "d2", "text": "second"},
    ]
    write_json_lines(folder / "corpus.jsonl", corpus)
    queries = [{"_id": "q1", "qid": "q2", "text": "one"}, {"_id": "q2", "qid": "q1", "text": "two"}]
    write_json_lines(folder / "queries.jsonl", queries)
    (folder / "qrels" / "test.tsv").write_text("a\tb\tscore\nq1\td1\t1\n")
    (row,) = import_rows(beir_source(folder), tmp_path / "out")
    assert (row["query"], row["document"]) == ("one", "first")


@pytest.mark.parametrize("other", ["doc_id", "docno", "docid", "id"])
def test_two_keys_of_a_table_are_an_error(tmp_path: Path, other: str) -> None:
    corpus = write_json_lines(tmp_path / "c.jsonl", [{other: "d1", "_id": "d2", "text": "x"}])
    with pytest.raises(ShardError, match=r"could both be the doc_id\. Rename one"):
        import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "out")
