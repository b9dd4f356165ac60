"""Every source gives the same pairs, whatever its files look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.import_pairs import import_pairs
from rgpt_batch.importing.sources.msmarco import Top1000Source
from tests.importing.files import (
    DOCUMENTS,
    QUERIES,
    RUN,
    beir_source,
    import_rows,
    pair_source,
    read_rows,
    run_import,
    trec_source,
    write_beir,
    write_json_lines,
    write_parquet,
    write_tsv,
)

# By query, then rank.
TEXTS = [
    {"query_id": q, "query": QUERIES[q], "doc_id": d, "document": DOCUMENTS[d]}
    for q, d in (("q1", "d1"), ("q1", "d3"), ("q2", "d2"))
]
FIRST_STAGE = [(2.5, 1), (1.0, 2), (9.5, 1)]
RANKED = [
    {**row, "first_stage_score": score, "first_stage_rank": rank}
    for row, (score, rank) in zip(TEXTS, FIRST_STAGE, strict=True)
]


def _tsv(path: Path, id_name: str, text_name: str, texts: dict[str, str]) -> Path:
    return write_tsv(
        path.with_suffix(".tsv"),
        [(id_name, "url", text_name)] + [(key, "http://x", text) for key, text in texts.items()],
    )


def _json_lines(path: Path, id_name: str, text_name: str, texts: dict[str, str]) -> Path:
    records = ({id_name: key, "extra": [1], text_name: text} for key, text in texts.items())
    return write_json_lines(path.with_suffix(".jsonl"), records)


def _parquet(path: Path, id_name: str, text_name: str, texts: dict[str, str]) -> Path:
    columns = {id_name: list(texts), "extra": list(texts), text_name: list(texts.values())}
    return write_parquet(path.with_suffix(".parquet"), columns)


def _parquet_folder(path: Path, id_name: str, text_name: str, texts: dict[str, str]) -> Path:
    for number, (key, text) in enumerate(texts.items()):
        write_parquet(path / f"part-{number}.parquet", {text_name: [text], id_name: [key]})
    return path


def _arrow_folder(path: Path, id_name: str, text_name: str, texts: dict[str, str]) -> Path:
    """What datasets.save_to_disk writes: Arrow streams, and state.json with their order."""
    path.mkdir()
    files = []
    for number, (key, text) in enumerate(texts.items()):
        batch = pa.record_batch({text_name: [text], id_name: [key], "extra": [{"a": 1}]})
        name = f"data-{number:05d}-of-{len(texts):05d}.arrow"
        with pa.ipc.new_stream(str(path / name), batch.schema) as writer:
            writer.write_batch(batch)
        files.append({"filename": name})
    write_json_lines(path / "state.json", [{"_data_files": files, "_fingerprint": "x"}])
    write_json_lines(path / "dataset_info.json", [{"features": {}}])
    return path


@pytest.mark.parametrize("write", [_tsv, _json_lines, _parquet, _parquet_folder, _arrow_folder])
@pytest.mark.parametrize(
    "names",
    [
        ("qid", "query", "docno", "text"),
        ("_id", "text", "_id", "text"),
        ("id", "text", "id", "contents"),
    ],
    ids=["pyterrier", "beir", "anserini"],
)
def test_run_with_tables_of_any_format(
    tmp_path: Path, write: Callable[..., Path], names: tuple[str, str, str, str]
) -> None:
    source = trec_source(
        tmp_path,
        queries=write(tmp_path / "queries", *names[:2], QUERIES),
        corpus=write(tmp_path / "corpus", *names[2:], DOCUMENTS),
    )
    assert import_rows(source, tmp_path / "pairs") == RANKED


@pytest.mark.parametrize("container", ["parquet", "stream", "file"])
@pytest.mark.parametrize(
    "column_type",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_strings_may_be_of_any_arrow_type(
    tmp_path: Path, column_type: pa.DataType, container: str
) -> None:
    table = pa.table(
        {
            "docno": pa.array(DOCUMENTS, pa.string()).cast(column_type),
            "text": pa.array(DOCUMENTS.values(), pa.string()).cast(column_type),
        }
    )
    corpus = tmp_path / ("corpus.parquet" if container == "parquet" else "corpus.arrow")
    if container == "parquet":
        pq.write_table(table, corpus)
    else:
        create = pa.ipc.new_stream if container == "stream" else pa.ipc.new_file
        with create(str(corpus), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    assert import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs") == RANKED


def test_damaged_arrow_file_is_an_error(tmp_path: Path) -> None:
    folder = _arrow_folder(tmp_path / "corpus", "docno", "text", DOCUMENTS)
    last = sorted(folder.glob("*.arrow"))[-1]
    last.write_bytes(last.read_bytes()[:-60])
    with pytest.raises(ShardError, match=r"00002-of-00003\.arrow: not a readable Arrow stream"):
        import_rows(trec_source(tmp_path, corpus=folder), tmp_path / "pairs")


def test_tables_of_two_columns_need_no_header(tmp_path: Path) -> None:
    assert import_rows(trec_source(tmp_path), tmp_path / "pairs") == RANKED


# Is a first line a header?


@pytest.mark.parametrize("text", ["id", "_id", "query", "text", "doc_id"])
def test_row_whose_text_is_called_like_a_column_is_a_row(tmp_path: Path, text: str) -> None:
    queries = write_tsv(tmp_path / "queries.tsv", [("q1", text), ("q2", "who built it")])
    said: list[str] = []
    source = trec_source(tmp_path, queries=queries)
    import_pairs(source, str(tmp_path / "pairs"), report=said.append)
    assert [row["query"] for row in read_rows(tmp_path / "pairs")] == [text, text, "who built it"]
    assert f"{queries}: without header; `q1\t{text}` is its first row" in said


@pytest.mark.parametrize("header", ["text\tid", "query\t_id", "query_id\ttext", "_id\tquery"])
def test_header_is_no_row_in_whatever_order(tmp_path: Path, header: str) -> None:
    is_first = header.split("\t")[0].endswith("id")
    rows = [row if is_first else row[::-1] for row in QUERIES.items()]
    queries = write_tsv(tmp_path / "queries.tsv", [header.split("\t"), *rows])
    assert import_rows(trec_source(tmp_path, queries=queries), tmp_path / "pairs") == RANKED


@pytest.mark.parametrize(
    "line", ["qid\tquestion", "question\tqid", "id\tquestion", "Query_ID\tText", "ID\tid"]
)
def test_line_that_may_be_a_header_or_a_row_is_refused(tmp_path: Path, line: str) -> None:
    queries = write_tsv(tmp_path / "queries.tsv", [line.split("\t"), *QUERIES.items()])
    with pytest.raises(ShardError, match=r"If the first line is a row, put a header above it: `qu"):
        run_import(trec_source(tmp_path, queries=queries), tmp_path / "pairs")


def test_beir_joins_title_and_text_as_beir_does(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    records = [
        {"_id": "d1", "title": "Towers", "text": "high \n"},
        {"_id": "d2", "title": "", "text": "no title"},
        {"_id": "d3", "text": "\u00a0none at all"},
    ]
    write_json_lines(folder / "corpus.jsonl", records)
    rows = import_rows(beir_source(folder, trec_run(tmp_path)), tmp_path / "pairs")
    expected = [(record.get("title", "") + " " + record["text"]).strip() for record in records]
    assert {row["doc_id"]: row["document"] for row in rows} == dict(
        zip(("d1", "d2", "d3"), expected, strict=True)
    )


def trec_run(folder: Path) -> Path:
    return Path(trec_source(folder).run)


def test_beir_takes_judged_pairs_as_candidates_without_their_grades(tmp_path: Path) -> None:
    rows = import_rows(beir_source(write_beir(tmp_path / "beir")), tmp_path / "pairs")
    assert [(row["query_id"], row["doc_id"]) for row in rows] == [("q1", "d1"), ("q1", "d3")]
    assert list(rows[0]) == ["query_id", "query", "doc_id", "document"]
    assert rows[0]["document"] == f"About d1 {DOCUMENTS['d1']}"


def test_beir_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    source = beir_source(write_beir(tmp_path / "beir"), split="dev")
    with pytest.raises(ConfigError, match=r"qrels/dev\.tsv.*there is test"):
        import_rows(source, tmp_path / "pairs")


def test_folder_that_is_not_beir_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"queries\.jsonl: no such file"):
        import_rows(beir_source(tmp_path, trec_run(tmp_path)), tmp_path / "pairs")


def test_ms_marco_run_of_three_columns_has_a_rank_and_no_score(tmp_path: Path) -> None:
    run = write_tsv(tmp_path / "run.tsv", [(q, d, rank) for q, d, rank, _ in RUN])
    rows = import_rows(trec_source(tmp_path, run=run), tmp_path / "pairs")
    assert [row.pop("first_stage_rank") for row in rows] == [1, 2, 1]
    assert rows == TEXTS


def test_ms_marco_top1000_brings_its_texts(tmp_path: Path) -> None:
    lines = [(q, d, QUERIES[q], DOCUMENTS[d]) for q, d, _, _ in RUN]
    path = write_tsv(tmp_path / "top1000.dev", lines)
    assert import_rows(Top1000Source(path=str(path)), tmp_path / "pairs") == TEXTS


def test_quotes_are_characters_like_any_other(tmp_path: Path) -> None:
    texts = {"d1": '"quoted" and 5" wide', "d2": '"open', "d3": "'single\\"}
    corpus = write_tsv(tmp_path / "corpus.tsv", texts.items())
    rows = import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")
    assert {row["doc_id"]: row["document"] for row in rows} == texts


def test_rankinggpt_top1000_json(tmp_path: Path) -> None:
    records = (
        {"qid": q, "pid": d, "query": QUERIES[q], "passage": DOCUMENTS[d]} for q, d, _, _ in RUN
    )
    path = write_json_lines(tmp_path / "top1000.json", records)
    assert import_rows(pair_source(path), tmp_path / "pairs") == TEXTS


def test_pyterrier_result_frame_with_numbers_in_docid(tmp_path: Path) -> None:
    columns = {
        "qid": [q for q, *_ in RUN],
        "docid": [77, 88, 99],
        "docno": [d for _, d, *_ in RUN],
        "rank": [rank for *_, rank, _ in RUN],
        "score": [score for *_, score in RUN],
        "query": [QUERIES[q] for q, *_ in RUN],
    }
    pairs = write_parquet(tmp_path / "results.parquet", columns)
    corpus = write_tsv(tmp_path / "corpus.tsv", DOCUMENTS.items())
    assert import_rows(pair_source(pairs, corpus=corpus), tmp_path / "pairs") == RANKED


def test_pairs_of_ids_alone_are_joined_with_parquet_tables(tmp_path: Path) -> None:
    pairs = write_tsv(tmp_path / "ids.tsv", [("qid", "pid"), *((q, d) for q, d, _, _ in RUN)])
    queries = _parquet(tmp_path / "queries", "query_id", "query", QUERIES)
    corpus = _parquet_folder(tmp_path / "corpus", "doc_id", "document", DOCUMENTS)
    assert import_rows(pair_source(pairs, queries, corpus), tmp_path / "pairs") == TEXTS


def test_texts_of_a_table_that_is_given_win_over_those_of_the_pairs(tmp_path: Path) -> None:
    records = [{"qid": "q1", "pid": "d1", "query": "old", "passage": "kept"}]
    path = write_json_lines(tmp_path / "pairs.jsonl", records)
    queries = write_tsv(tmp_path / "queries.tsv", QUERIES.items())
    (row,) = import_rows(pair_source(path, queries), tmp_path / "pairs")
    assert (row["query"], row["document"]) == (QUERIES["q1"], "kept")


def test_pairs_without_texts_ask_for_a_table(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "pairs.jsonl", [{"qid": "q1", "pid": "d1", "query": "x"}])
    with pytest.raises(ConfigError, match=r"no document column.*--corpus"):
        import_rows(pair_source(path), tmp_path / "pairs")


def test_integer_ids_of_parquet_meet_the_strings_of_a_run(tmp_path: Path) -> None:
    pairs = write_tsv(tmp_path / "ids.tsv", [("qid", "pid"), ("1", "18446744073709551615")])
    queries = write_parquet(tmp_path / "queries.parquet", {"qid": [1], "query": ["text"]})
    ids = pa.array([18446744073709551615], pa.uint64())
    corpus = write_parquet(tmp_path / "corpus.parquet", {"docno": ids, "text": ["document"]})
    (row,) = import_rows(pair_source(pairs, queries, corpus), tmp_path / "pairs")
    assert row["doc_id"] == "18446744073709551615"
    assert row["document"] == "document"


def test_id_with_leading_zeros_is_not_the_number(tmp_path: Path) -> None:
    texts = {"7": "seven", "007": "agent", "7.0": "float"}
    run = write_tsv(tmp_path / "run", [("q1", doc_id, 1) for doc_id in texts])
    corpus = write_tsv(tmp_path / "corpus.tsv", texts.items())
    rows = import_rows(trec_source(tmp_path, run=run, corpus=corpus), tmp_path / "pairs")
    assert {row["doc_id"]: row["document"] for row in rows} == texts


@pytest.mark.parametrize("first", ["ints", "strings"])
def test_parquet_files_with_ids_of_different_types_are_an_error(tmp_path: Path, first: str) -> None:
    ids: dict[str, list[int] | list[str]] = {"ints": [7], "strings": ["007"]}
    names = sorted(ids, key=lambda name: name != first)
    for number, name in enumerate(names):
        columns = {"docno": ids[name], "text": ["x"]}
        write_parquet(tmp_path / "corpus" / f"{number}.parquet", columns)
    with pytest.raises(ShardError, match=r"1.parquet: column 'docno' is"):
        import_rows(trec_source(tmp_path, corpus=tmp_path / "corpus"), tmp_path / "pairs")


def test_data_set_of_several_splits_names_them(tmp_path: Path) -> None:
    _arrow_folder(tmp_path / "train", "docno", "text", DOCUMENTS)
    write_json_lines(tmp_path / "dataset_dict.json", [{"splits": ["train"]}])
    with pytest.raises(ConfigError, match=r"splits train. Name the folder"):
        import_rows(trec_source(tmp_path, corpus=tmp_path), tmp_path / "out" / "pairs")


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("c.parquet", {"docno": ["d1"], "body": ["x"]}, "no document column .*docno, body"),
        ("c.parquet", {"docno": [1.5], "text": ["x"]}, "'docno' is double, expected string"),
        ("c.parquet", {"docno": ["d1"], "text": [b"x"]}, "'text' is binary, expected string"),
        ("c.parquet", {"docno": ["d"], "text": ["x"], "doc": ["y"]}, "text and doc could both"),
        ("c.parquet", {"docno": ["d"], "text": ["x"], "Text": ["y"]}, "upper and lower case"),
    ],
)
def test_table_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, columns: dict[str, list[object]], message: str
) -> None:
    corpus = write_parquet(tmp_path / name, columns)
    with pytest.raises((ConfigError, ShardError), match=message):
        import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize("name", ["c.PARQUET", "c.parq", "c.pq", "part-00000", "c.xlsx"])
def test_parquet_is_read_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    columns = {"docno": list(DOCUMENTS), "text": list(DOCUMENTS.values())}
    corpus = write_parquet(tmp_path / name, columns)
    assert len(import_rows(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")) == len(RUN)


def test_file_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.xlsx").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"c\.xlsx: the name of a corpus must end in one of"):
        run_import(trec_source(tmp_path, corpus=tmp_path / "c.xlsx"), tmp_path / "pairs")


def test_folder_of_arrow_and_parquet_is_refused(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "c/a.parquet", {"docno": ["d1"], "text": ["x"]}).parent
    table = pa.table({"docno": ["d2"], "text": ["y"]})
    with pa.ipc.new_stream(str(folder / "b.arrow"), table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(ConfigError, match=r"c: holds b\.arrow and a\.parquet, Arrow and Parquet"):
        run_import(trec_source(tmp_path, corpus=folder), tmp_path / "pairs")


def test_path_with_the_signs_of_a_pattern_is_read_as_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "text=1" / "a[1]*"
    corpus = write_parquet(
        folder / "b?.parquet", {"docno": list(DOCUMENTS), "text": list(DOCUMENTS.values())}
    )
    write_parquet(folder / "bc.parquet", {"docno": ["d1"], "text": ["wrong"]})
    assert import_rows(trec_source(tmp_path, corpus=corpus), folder / "pairs '") == RANKED
