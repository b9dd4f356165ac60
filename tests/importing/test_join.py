"""Unknown ids, duplicate ids, and the order of the rows."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.join import MissingIds
from tests.importing.files import (
    DOCUMENTS,
    QUERIES,
    RUN,
    import_rows,
    pair_source,
    read_rows,
    run_import,
    trec_source,
    write_json_lines,
    write_parquet,
    write_run,
    write_tsv,
)


def test_unknown_ids_are_counted_with_examples_and_nothing_is_written(tmp_path: Path) -> None:
    rows = [*RUN, ("q9", "d1", 1, 1.0), ("q1", "d8", 3, 0.5), ("q2", "d8", 2, 0.5)]
    run = write_run(tmp_path / "run.trec", rows)
    summary = run_import(trec_source(tmp_path, run=run), tmp_path / "pairs")
    assert summary.exit_code == 3
    assert summary.missing_queries == MissingIds(
        num_ids=1, num_pairs=1, examples=(f"'q9' ({run}:4)",)
    )
    assert summary.missing_documents == MissingIds(
        num_ids=1, num_pairs=2, examples=(f"'d8' ({run}:5)",)
    )
    assert {path.name for path in tmp_path.iterdir()} == {"run.trec", "queries.tsv", "corpus.tsv"}


def test_pairs_with_unknown_ids_can_be_kept_without_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("q9", "d1", 1, 1.0), ("q1", "d9", 1, 0.5)])
    source = trec_source(tmp_path, run=run)
    summary = run_import(source, tmp_path / "pairs", missing="null")
    assert (summary.exit_code, summary.num_pairs) == (0, 2)
    assert summary.missing_queries.num_pairs == summary.missing_documents.num_pairs == 1
    texts = [(row["query"], row["document"]) for row in read_rows(tmp_path / "pairs")]
    assert texts == [(QUERIES["q1"], None), (None, DOCUMENTS["d1"])]


def test_examples_of_unknown_ids_are_few(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("q1", f"x{i:03}", i, 1.0) for i in range(100)])
    missing = run_import(trec_source(tmp_path, run=run), tmp_path / "pairs").missing_documents
    assert missing.num_ids == 100
    assert missing.examples == tuple(f"'x{i:03}' ({run}:{i + 1})" for i in range(3))


@pytest.mark.parametrize("table", ["queries", "corpus"])
def test_id_with_two_texts_is_an_error_with_its_lines(tmp_path: Path, table: str) -> None:
    source = trec_source(tmp_path)
    path = tmp_path / f"{table}.tsv"
    first = path.read_text().split("\t")[0]
    path.write_text(path.read_text() + f"\n{first}\tagain\n")
    with pytest.raises(ShardError, match=f"1 ids are there more than once: .*'{first}' in lines 1"):
        run_import(source, tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_parquet_corpus_with_duplicate_ids_is_an_error_with_examples(tmp_path: Path) -> None:
    ids = [f"d{i % 50}" for i in range(70)]
    corpus = write_parquet(tmp_path / "c.parquet", {"docno": ids, "text": ids})
    with pytest.raises(ShardError, match=r"20 ids are there more .*: doc_id 'd0'; doc_id 'd1'; "):
        run_import(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")


def test_pair_that_is_given_twice_is_an_error_with_its_lines(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [*RUN, RUN[0]])
    with pytest.raises(ShardError, match="query_id 'q2' with doc_id 'd2' in lines 1 and 4"):
        run_import(trec_source(tmp_path, run=run), tmp_path / "pairs")


@pytest.mark.parametrize("bad", [None, ""])
def test_row_without_id_is_an_error(tmp_path: Path, bad: str | None) -> None:
    columns = {"docno": pa.array(["d1", bad], pa.string()), "text": ["x", "y"]}
    corpus = write_parquet(tmp_path / "c.parquet", columns)
    with pytest.raises(ShardError, match=r"c\.parquet: 1 rows have no doc_id"):
        run_import(trec_source(tmp_path, corpus=corpus), tmp_path / "pairs")


def test_order_is_by_query_rank_score_and_document_whatever_the_input_order(tmp_path: Path) -> None:
    chooser = random.Random(0)
    rows = [
        (f"q{query}", f"d{doc:03}", chooser.randint(1, 9), chooser.choice([0.5, 1.5]))
        for query in range(20)
        for doc in range(200)
    ]
    expected = sorted(rows, key=lambda row: (row[0], row[2], -row[3], row[1]))
    chooser.shuffle(rows)
    source = trec_source(
        tmp_path,
        run=write_run(tmp_path / "run", rows),
        queries=write_tsv(tmp_path / "q.tsv", [(f"q{i}", f"query {i}") for i in range(20)]),
        corpus=write_tsv(tmp_path / "c.tsv", [(f"d{i:03}", f"text {i}") for i in range(200)]),
    )
    found = import_rows(source, tmp_path / "pairs")
    names = ("query_id", "doc_id", "first_stage_rank", "first_stage_score")
    assert [tuple(row[name] for name in names) for row in found] == expected
    assert all(row["document"] == f"text {int(row['doc_id'][1:])}" for row in found)


def test_pairs_without_rank_or_score_are_ordered_by_ids(tmp_path: Path) -> None:
    ids = [("b", "2"), ("a", "2"), ("b", "10"), ("B", "1")]
    records = [{"qid": q, "pid": d, "query": "q", "passage": "d"} for q, d in ids]
    path = write_json_lines(tmp_path / "pairs.jsonl", records)
    found = import_rows(pair_source(path), tmp_path / "pairs")
    assert [(row["query_id"], row["doc_id"]) for row in found] == sorted(ids)


def test_table_without_rows_is_an_error(tmp_path: Path) -> None:
    empty = pa.array([], pa.string())
    columns = {"qid": empty, "pid": empty, "query": empty, "passage": empty}
    path = write_parquet(tmp_path / "p.parquet", columns)
    with pytest.raises(ConfigError, match="holds no pairs"):
        run_import(pair_source(path), tmp_path / "pairs")
