"""Whatever Unicode ids and texts hold, it arrives as it left."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.importing.files import (
    beir_source,
    import_rows,
    pair_source,
    trec_source,
    write_json_lines,
    write_run,
    write_tsv,
)
from tests.property.texts import characters, texts

# No deadline: the machine may be busy. An import takes 0.15 s: few of them, with many texts each.
_settings = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

_ids = st.text(characters, min_size=1, max_size=8)
# A line ends with \n, \r before it belongs to the end, a byte-order mark may stand before it.
_field_ids = st.text(
    st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"], exclude_characters="\ufeff"),
    min_size=1,
    max_size=8,
)
_field_texts = texts.map(lambda text: "".join(c for c in text if c not in "\t\n\r"))


@_settings
@given(queries=st.dictionaries(_ids, texts, min_size=1, max_size=8), data=st.data())
def test_json_lines_give_back_every_character(queries: dict[str, str], data: st.DataObject) -> None:
    documents = data.draw(st.dictionaries(_ids, texts, min_size=1, max_size=8))
    records = [
        {"qid": qid, "pid": pid, "query": query, "passage": passage}
        for qid, query in queries.items()
        for pid, passage in documents.items()
    ]
    with tempfile.TemporaryDirectory() as name:
        path = write_json_lines(Path(name, "top1000.json"), records)
        rows = import_rows(pair_source(path), Path(name, "pairs"))
    # By code point, which is also the order of UTF-8's bytes.
    expected = sorted(records, key=lambda record: (record["qid"], record["pid"]))
    keys = ("query_id", "doc_id", "query", "document")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        tuple(record.values()) for record in expected
    ]


@_settings
@given(
    queries=st.dictionaries(_field_ids, _field_texts, min_size=1, max_size=8),
    documents=st.dictionaries(_field_ids, _field_texts, min_size=1, max_size=8),
)
def test_tab_separated_files_give_back_every_character(
    queries: dict[str, str], documents: dict[str, str]
) -> None:
    run = [(q, d, 1, 0.5) for q in queries for d in documents]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = trec_source(
            folder,
            run=write_run(folder / "run", run),
            queries=write_tsv(folder / "queries.tsv", [("qid", "query"), *queries.items()]),
            corpus=write_tsv(folder / "corpus.tsv", [("docno", "text"), *documents.items()]),
        )
        rows = import_rows(source, folder / "pairs")
    assert len(rows) == len(run)
    assert all(row["query"] == queries[row["query_id"]] for row in rows)
    assert all(row["document"] == documents[row["doc_id"]] for row in rows)


@_settings
@given(documents=st.lists(st.tuples(texts, texts), min_size=1, max_size=12))
def test_title_and_text_are_joined_as_python_would(documents: list[tuple[str, str]]) -> None:
    corpus = [
        {"_id": f"d{number:02}", "title": title, "text": text}
        for number, (title, text) in enumerate(documents)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json_lines(folder / "corpus.jsonl", corpus)
        write_json_lines(folder / "queries.jsonl", [{"_id": "q", "text": "query"}])
        run = write_run(folder / "run", [("q", record["_id"], 1, 0.5) for record in corpus])
        rows = import_rows(beir_source(folder, run), folder / "pairs")
    assert [row["doc_id"] for row in rows] == [record["_id"] for record in corpus]
    assert [row["document"] for row in rows] == [
        f"{title} {text}".strip() for title, text in documents
    ]


def test_every_white_space_character_is_stripped(tmp_path: Path) -> None:
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    corpus = [
        {"_id": f"d{number}", "title": f"{space}a{space}", "text": f"b{space}"}
        for number, space in enumerate([*spaces, "\u200b", "\ufeff", "\0"])
    ]
    write_json_lines(tmp_path / "corpus.jsonl", corpus)
    write_json_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "query"}])
    run = write_run(tmp_path / "run", [("q", record["_id"], 1, 0.5) for record in corpus])
    rows = import_rows(beir_source(tmp_path, run), tmp_path / "pairs")
    assert {row["doc_id"]: row["document"] for row in rows} == {
        record["_id"]: f"{record['title']} {record['text']}".strip() for record in corpus
    }
