"""Files as they are: other line ends, marks, compression, damage."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from rgpt_batch.errors import ShardError
from rgpt_batch.importing.import_pairs import import_pairs
from rgpt_batch.importing.readers.trec import read_qrels, read_run
from rgpt_batch.importing.sources.pairs import PairSource
from tests.importing.files import (
    DOCUMENTS,
    import_rows,
    pair_source,
    trec_source,
    write_json_lines,
    write_parquet,
    write_run,
    write_tsv,
)


def _write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: b"\n\n" + content.replace(b"\n", b"\n \n"),
        lambda content: content.removesuffix(b"\n"),
        gzip.compress,
        lambda content: gzip.compress(b"\xef\xbb\xbf" + content[:9]) + gzip.compress(content[9:]),
    ],
    ids=["bom", "crlf", "blank lines", "no last line end", "gzip", "gzip in parts, bom"],
)
def test_wrapping_of_text_files_does_not_matter(tmp_path: Path, change: object) -> None:
    expected = import_rows(trec_source(tmp_path), tmp_path / "expected")
    for name in ("run.trec", "queries.tsv", "corpus.tsv"):
        path = tmp_path / name
        path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    source = trec_source(
        tmp_path,
        run=tmp_path / "run.trec",
        queries=tmp_path / "queries.tsv",
        corpus=tmp_path / "corpus.tsv",
    )
    assert import_rows(source, tmp_path / "pairs") == expected


def test_gzip_is_recognised_by_name_and_by_content(tmp_path: Path) -> None:
    lines = (f"{key}\t{text}\n" for key, text in DOCUMENTS.items())
    corpus = _write(tmp_path / "corpus.tsv.gz", gzip.compress("".join(lines).encode()))
    assert len(import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")) == 3


@pytest.mark.parametrize(
    "line",
    [
        "q1 Q0 d1 1 2.5 bm25",
        "q1\tQ0\td1\t1\t2.5\tbm25",
        "  q1   Q0\td1 1  2.5\t bm25  ",
        "q1\tQ0\td1\t1\t2.5\tmy tag",
        "q1 Q0 d1 +1 25e-1 bm25",
    ],
)
def test_run_may_have_tabs_or_blanks(tmp_path: Path, line: str) -> None:
    run = _write(tmp_path / "run", f"{line}\n")
    (row,) = import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")
    found = (row["query_id"], row["doc_id"], row["first_stage_rank"], row["first_stage_score"])
    assert found == ("q1", "d1", 1, 2.5)


def test_tab_separated_ids_may_hold_blanks(tmp_path: Path) -> None:
    corpus = write_tsv(tmp_path / "corpus.tsv", [("New York", "a city")])
    run = _write(tmp_path / "run", "q1\tQ0\tNew York\t1\t2\tbm25\n")
    (row,) = import_rows(trec_source(tmp_path, run=run, corpus=corpus), tmp_path / "pairs")
    assert (row["doc_id"], row["document"]) == ("New York", "a city")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 d1 1 2.5", "expected `query_id Q0 doc_id rank score tag`"),
        ("q1 0 d1 2", "expected `query_id Q0"),
        ("q1 Q0 d1 one 2.5 bm25", "first_stage_rank is 'one', expected a whole number"),
        ("q1 Q0 d1 9999999999 2.5 bm25", "first_stage_rank is '9999999999'"),
        ("q1 Q0 d1 1 high bm25", "first_stage_score is 'high', expected a finite number"),
        ("q1 Q0 d1 1 nan bm25", "first_stage_score is 'nan'"),
        ("q1\tQ0\t\t1\t2.5\tbm25", "doc_id is '', expected a string"),
    ],
)
def test_malformed_line_of_a_run_is_named(tmp_path: Path, line: str, message: str) -> None:
    run = _write(tmp_path / "run", f"q2 Q0 d2 1 2.5 bm25\n\n{line}\n")
    with pytest.raises(ShardError, match=message) as caught:
        import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")
    assert str(caught.value).startswith(f"{run}:3: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object, found list"),
        ('{"text": "no id"}', "doc_id is None"),
        ('{"_id": "", "text": "x"}', "doc_id is ''"),
        ('{"_id": 1.5, "text": "x"}', "doc_id is 1.5"),
        ('{"_id": true, "text": "x"}', "doc_id is True"),
        ('{"_id": "d2", "text": ["x"]}', "document is of type list"),
        ('{"_id": "d2", "text": "half \\ud83d"}', "document holds half of a surrogate pair"),
        ('{"_id": "d2\\udc00", "text": "x"}', "doc_id holds half of a surrogate pair"),
    ],
)
def test_malformed_json_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    corpus = _write(tmp_path / "c.jsonl", f'{{"_id": "d1", "text": "x"}}\n\n{line}\n')
    with pytest.raises(ShardError, match=message) as caught:
        import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")
    assert str(caught.value).startswith(f"{corpus}:3: ")


@pytest.mark.parametrize("line", ["d2", "d2\tone\ttwo"])
def test_line_with_another_number_of_fields_is_named(tmp_path: Path, line: str) -> None:
    corpus = _write(tmp_path / "c.tsv", f"d1\ttext\n{line}\n")
    with pytest.raises(ShardError, match="tab-separated fields, expected 2") as caught:
        import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")
    assert str(caught.value).startswith(f"{corpus}:2: ")


def test_bytes_that_are_not_utf8_are_an_error_with_their_line(tmp_path: Path) -> None:
    corpus = _write(tmp_path / "c.tsv", b"d1\tgood\nd2\tcaf\xe9\n")
    with pytest.raises(ShardError, match=r"c\.tsv:2: not UTF-8 .*at byte 7.*iconv"):
        import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")


def test_gzip_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"d{i}\t{i * 7919}\n" for i in range(9999)).encode())
    corpus = _write(tmp_path / "c.tsv.gz", whole[: len(whole) // 2])
    with pytest.raises(ShardError, match="reading failed after line"):
        import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_run_without_lines_is_an_error(tmp_path: Path, content: str) -> None:
    run = _write(tmp_path / "run", content)
    with pytest.raises(ShardError, match="the run has no lines"):
        import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")


def test_null_text_of_a_corpus_stays_null(tmp_path: Path) -> None:
    records = [{"_id": "d1", "title": "t", "text": None}, {"_id": "d2", "text": "x"}, {"_id": "d3"}]
    corpus = write_json_lines(tmp_path / "c.jsonl", records)
    rows = import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")
    assert [row["document"] for row in rows] == [None, None, "x"]


def test_keys_of_json_may_come_in_any_order_and_be_missing_at_first(tmp_path: Path) -> None:
    records = [{"pid": "d1", "qid": "q1"}, {"query": "x", "passage": "y", "qid": "q2", "pid": 2}]
    path = write_json_lines(tmp_path / "pairs.jsonl", records)
    rows = import_rows(pair_source(path), tmp_path / "pairs")
    assert [tuple(row.values()) for row in rows] == [
        ("q1", None, "d1", None),
        ("q2", "x", "2", "y"),
    ]


def test_parquet_text_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets = pa.py_buffer(b"\0\0\0\0\2\0\0\0")
    damaged = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"docno": ["d1"], "text": damaged}), tmp_path / "c.parquet")
    run = write_run(tmp_path / "run", [("q1", "d1", 1, 1.0)])
    source = trec_source(tmp_path, run=run, corpus=tmp_path / "c.parquet")
    with pytest.raises(ShardError, match="not valid UTF8"):
        import_rows(source, tmp_path / "pairs")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "c.parquet",
        "queries.tsv",
        "run",
    ]


@pytest.mark.parametrize("number", ["1_0", "\uff13", "\u0663", "true", "0x10", "1,5"])
def test_what_python_alone_takes_for_a_number_is_none(tmp_path: Path, number: str) -> None:
    run = _write(tmp_path / "run", f"q1 Q0 d1 1 {number} x\n")
    with pytest.raises(ShardError, match=r"run:1: first_stage_score is '.*', expected a finite"):
        import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")
    run = _write(tmp_path / "run", f"q1 Q0 d1 {number} 2.5 x\n")
    with pytest.raises(ShardError, match=r"run:1: first_stage_rank is '.*', expected a whole"):
        import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")


@pytest.mark.parametrize("number", ["1_0", "\uff13", "\u0663"])
def test_no_score_or_grade_is_taken_from_it_either(tmp_path: Path, number: str) -> None:
    with pytest.raises(ShardError, match="run:1: expected `query_id Q0"):
        list(read_run(str(_write(tmp_path / "run", f"q1 Q0 d1 1 {number} x\n"))))
    with pytest.raises(ShardError, match="qrels:1: expected `query_id 0"):
        read_qrels(str(_write(tmp_path / "qrels", f"q1 0 d1 {number}\n")))


@pytest.mark.parametrize(("text", "rank"), [("1.0", 1), ("12.00", 12), ("3", 3)])
def test_rank_that_pandas_writes_is_a_rank(tmp_path: Path, text: str, rank: int) -> None:
    run = _write(tmp_path / "run", f"q1 Q0 d1 {text} 2.5 x\n")
    (row,) = import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")
    assert row["first_stage_rank"] == rank


def test_rank_between_two_is_none(tmp_path: Path) -> None:
    run = _write(tmp_path / "run", "q1 Q0 d1 1.5 2.5 x\n")
    with pytest.raises(ShardError, match=r"first_stage_rank is '1\.5', expected a whole number"):
        import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")


@pytest.mark.parametrize(
    ("column", "value", "limit"),
    [
        ("score", float("inf"), "3.4e+38, which float32"),
        ("score", float("nan"), "3.4e+38, which float32"),
        ("score", 1e300, "3.4e+38, which float32"),
        ("rank", 2**40, "2.1e+09, which int32"),
    ],
)
def test_first_stage_of_parquet_that_is_no_number_to_order_by_is_named_with_its_row(
    tmp_path: Path, column: str, value: float, limit: str
) -> None:
    columns = {"qid": ["q"] * 3, "docno": ["a", "b", "c"], "query": ["x"] * 3, "text": ["y"] * 3}
    path = write_parquet(tmp_path / "pairs.parquet", {**columns, column: [1, None, value]})
    source = PairSource(pairs=path, queries=None, corpus=None)
    said = f"{path}: row 2 (counted from 0) has {float(value)!r} in column '{column}', expected"
    with pytest.raises(ShardError, match=re.escape(said)) as refused:
        import_pairs(source, tmp_path / "pairs")
    assert f"at most {limit} can hold" in str(refused.value)
    assert not (tmp_path / "pairs").exists()
