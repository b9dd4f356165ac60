"""Scoring ids whose texts stand in tables of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rgpt_batch import run_job, verify_output
from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError
from rgpt_batch.importing.joined import TextTables
from rgpt_batch.job.run_job import retry_failed
from rgpt_batch.output import open_store
from rgpt_batch.planning.identity import TableFiles
from rgpt_batch.records import UnitFailure
from tests.importing.files import pair_source, run_import, write_json_lines, write_parquet
from tests.jobs import Scored, fake_config, read_output, score
from tests.report.jobs import write_report
from tests.report.pages import Page

NUM_QUERIES, NUM_DOCUMENTS = 8, 30
PAIRS = [(f"q{(i * 5) % 8}", f"d{(i * 7) % 30}", float(i)) for i in range(120)]

Run = Callable[..., Scored]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Folder of candidates, queries and a corpus of two files with titles."""
    query_ids, doc_ids, scores = zip(*PAIRS, strict=True)
    write_parquet(
        tmp_path / "candidates.parquet", {"qid": query_ids, "docno": doc_ids, "score": scores}
    )
    rows = range(NUM_QUERIES)
    write_parquet(
        tmp_path / "queries.parquet",
        {"_id": [f"q{i}" for i in rows], "text": [f"what is number {i}" for i in rows]},
    )
    for low in (0, 15):
        rows = range(low, low + 15)
        write_parquet(
            tmp_path / "corpus" / f"{low}.parquet",
            {
                "_id": [f"d{i}" for i in rows],
                "title": [f"Number {i}" for i in rows],
                "text": [f"is told {'again and ' * i}" for i in rows],
            },
        )
    return tmp_path


@pytest.fixture
def run(tiny_tokenizer: Path, tables: Path) -> Run:
    """Score the tables in units of 16 rows, in a folder beside them."""

    def run_one(*overrides: str, name: str = "scored", **options: Any) -> Scored:
        config = fake_config(tiny_tokenizer, "units.max_rows=16", *overrides)
        inputs = options.pop("inputs", [str(tables / "candidates.parquet")])
        given = {
            "queries": str(tables / "queries.parquet"),
            "documents": str(tables / "corpus"),
            **options.pop("tables", {}),
        }
        output = tables / name
        summary = run_job(
            config, inputs, str(output), tables=TextTables(**given), quiet=True, **options
        )
        return Scored(summary=summary, table=read_output(output), folder=output)

    return run_one


def test_scores_are_those_of_import_and_score(run: Run, tables: Path, tiny_tokenizer: Path) -> None:
    source = pair_source(
        tables / "candidates.parquet", tables / "queries.parquet", tables / "corpus"
    )
    run_import(source, tables / "pairs", order="document")
    keep = "output.pass_through=[first_stage_score]"
    imported = score(fake_config(tiny_tokenizer, keep), [tables / "pairs"], tables / "imported")
    joined = run(keep)
    assert joined.table.equals(imported.table)
    assert joined.summary.num_rows == 120
    assert joined.summary.num_units > 5
    assert joined.table["score"].null_count == 0


def test_output_has_every_candidate_once_ordered_by_document(run: Run) -> None:
    joined = run()
    found = list(zip(joined.column("query_id"), joined.column("doc_id"), strict=True))
    assert found == sorted(((q, d) for q, d, _ in PAIRS), key=lambda pair: pair[::-1])
    assert verify_output(joined.folder, num_rescored=20).problems == ()


def test_tables_are_joined_whatever_their_files_are_called(run: Run, tables: Path) -> None:
    expected = run(name="usual").table
    (tables / "queries.parquet").rename(tables / "queries.PQ")
    (tables / "candidates.parquet").rename(tables / "part-00000")
    found = run(
        inputs=[str(tables / "part-00000")], tables={"queries": str(tables / "queries.PQ")}
    ).table
    assert found.equals(expected)


def test_texts_may_stand_partly_with_the_candidates(run: Run, tables: Path) -> None:
    whole = run()
    query_ids, doc_ids, _ = zip(*PAIRS, strict=True)
    texts = [f"what is number {query_id[1:]}" for query_id in query_ids]
    path = write_parquet(
        tables / "with-queries.parquet", {"qid": query_ids, "docno": doc_ids, "query": texts}
    )
    partly = run(inputs=[str(path)], tables={"queries": None}, name="partly")
    assert partly.table.equals(whole.table)


def test_unknown_ids_stop_the_job_and_are_named(run: Run, tables: Path) -> None:
    bad = [*PAIRS, ("q99", "d1", 0.0), ("q1", "d98", 0.0), ("q2", "d98", 0.0)]
    query_ids, doc_ids, _ = zip(*bad, strict=True)
    write_parquet(tables / "candidates.parquet", {"qid": query_ids, "docno": doc_ids})
    with pytest.raises(ShardError) as error:
        run()
    assert "1 pairs have a query_id that is not there, such as 'q99'" in str(error.value)
    assert "2 pairs have a doc_id that is not there, such as 'd98'" in str(error.value)
    assert list((tables / "scored").glob("part-*")) == []


def test_unknown_ids_can_be_rejected_instead(run: Run, tables: Path) -> None:
    bad = [*PAIRS, ("q99", "d1", 0.0), ("q1", "d98", 0.0)]
    query_ids, doc_ids, _ = zip(*bad, strict=True)
    write_parquet(tables / "candidates.parquet", {"qid": query_ids, "docno": doc_ids})
    scored = run("input.missing=reject")
    assert scored.summary.num_rejected == {"NULL_QUERY": 1, "NULL_DOCUMENT": 1}
    rejected = {(row["query_id"], row["doc_id"]): row["rejection"] for row in scored.rows}
    assert rejected["q99", "d1"] == "NULL_QUERY"
    assert rejected["q1", "d98"] == "NULL_DOCUMENT"
    assert scored.summary.num_rows == 122


@pytest.mark.parametrize("changed", ["candidates.parquet", "queries.parquet", "corpus/15.parquet"])
def test_a_change_of_any_table_makes_another_job(run: Run, tables: Path, changed: str) -> None:
    run()
    table = pq.read_table(tables / changed)
    pq.write_table(table.slice(0, table.num_rows), tables / changed, row_group_size=3)
    with pytest.raises(ManifestMismatch, match=rf"input \w+ {tables / changed}: was "):
        run()
    again = run(on_change="overwrite")
    assert again.summary.num_rows_scored == 120
    assert len(list((tables / "scored" / "_rgpt").glob("pairs-*"))) == 1


def test_the_same_command_finds_its_work_done_without_joining_again(run: Run, tables: Path) -> None:
    first = run()
    (pairs,) = (first.folder / "_rgpt").glob("pairs-*")
    before = {path: path.stat().st_mtime_ns for path in pairs.iterdir()}
    (first.folder / "part-000002.parquet").unlink()
    again = run()
    assert again.table.equals(first.table)
    assert 0 < again.summary.num_rows_scored <= 16
    assert {path: path.stat().st_mtime_ns for path in pairs.iterdir()} == before


def test_a_join_that_was_left_behind_unplanned_is_used(run: Run, tables: Path) -> None:
    # As after a kill between join and plan.
    first = run()
    (pairs,) = (first.folder / "_rgpt").glob("pairs-*")
    inodes = {path.stat().st_ino for path in pairs.iterdir()}
    for path in [*first.folder.glob("part-*"), *(first.folder / "_rgpt").glob("plan-*")]:
        path.unlink()
    (first.folder / "_SUCCESS").unlink()
    again = run()
    assert again.table.equals(first.table)
    assert {path.stat().st_ino for path in pairs.iterdir()} == inodes


def test_scores_of_joined_tables_can_be_reused(run: Run, tables: Path) -> None:
    first = run()
    query_ids, doc_ids, _ = zip(*PAIRS[:50], strict=True)
    write_parquet(tables / "candidates.parquet", {"qid": query_ids, "docno": doc_ids})
    second = run(name="second", reuse=str(first.folder))
    assert second.summary.num_reused == 50


def test_the_plan_names_all_tables(run: Run, tables: Path) -> None:
    manifest = open_store(str(run().folder)).load_manifest()
    assert manifest is not None
    assert isinstance(manifest.identity.input, TableFiles)
    found = {name: table.paths for name, table in manifest.identity.input.tables.items()}
    assert found == {
        "candidates": (f"{tables}/candidates.parquet",),
        "queries": (f"{tables}/queries.parquet",),
        "documents": (f"{tables}/corpus/0.parquet", f"{tables}/corpus/15.parquet"),
    }


def test_wrong_use_is_refused_before_anything_is_written(run: Run, tables: Path) -> None:
    candidates = str(tables / "candidates.parquet")
    lines = write_json_lines(tables / "q.jsonl", [{"_id": "q1", "text": "x"}])
    for options, message in (
        ({"inputs": [candidates, candidates]}, "--input is given 2 times"),
        ({"tables": {"queries": None}}, "the candidates have no query column"),
        ({"tables": {"documents": None}}, "the candidates have no document column"),
        ({"tables": {"queries": str(lines)}}, "joins Parquet alone, and this table of queries"),
        ({"tables": {"documents": str(tables / "none")}}, "no such file or folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(**options)
    for override, message in (
        ("input.columns.query_id=qid", "input.columns does not go with --queries"),
        ("output.pass_through=[colour]", "colour cannot be copied. Of .* first_stage_score can be"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(override)
    assert not (tables / "scored").exists()
    with pytest.raises(ConfigError, match="the output folder lies in the input folder"):
        run(name="corpus/scored")


def test_a_text_that_is_there_twice_is_an_error(run: Run, tables: Path) -> None:
    write_parquet(
        tables / "corpus" / "again.parquet",
        {"_id": ["d3"], "title": pa.array(["t"]), "text": ["x"]},
    )
    with pytest.raises(ShardError, match="1 ids are there more than once: doc_id 'd3'"):
        run()
    assert list((tables / "scored" / "_rgpt" / "staging").iterdir()) == []


def test_failed_units_of_a_joined_job_are_tried_again(run: Run, tables: Path) -> None:
    first = run()
    (first.folder / "_SUCCESS").unlink()
    victim = sorted(first.folder.glob("part-*.parquet"))[2]
    num_rows = pq.read_metadata(victim).num_rows
    victim.unlink()
    unit_id = victim.stem.removeprefix("part-")
    open_store(str(first.folder)).add_failure(
        UnitFailure(unit_id=unit_id, num_rows=num_rows, num_attempts=3, cause="a bad disk")
    )
    summary = retry_failed(str(first.folder), quiet=True)
    assert (summary.exit_code, summary.num_rows_scored) == (0, num_rows)
    assert read_output(first.folder).equals(first.table)
    assert verify_output(first.folder).problems == ()


def test_retry_finds_that_a_table_has_changed(run: Run, tables: Path) -> None:
    first = run()
    rows = range(NUM_QUERIES)
    write_parquet(
        tables / "queries.parquet",
        {"_id": [f"q{i}" for i in rows], "text": [f"who is number {i}" for i in rows]},
    )
    with pytest.raises(ManifestMismatch, match=r"input queries .*queries\.parquet: was "):
        retry_failed(str(first.folder), quiet=True)


def test_report_names_the_tables_and_their_columns(run: Run, tables: Path) -> None:
    output = run().folder
    assert write_report(output, "--to", tables / "report.html").exit_code == 0
    page = Page.read(tables / "report.html")
    settings = dict(row for row in page.all_rows() if len(row) == 2)
    corpus = tables / "corpus" / "0.parquet"
    assert settings["input candidates"] == str(tables / "candidates.parquet")
    assert settings["input queries"] == str(tables / "queries.parquet")
    assert settings["input documents"] == f"{corpus} and 1 more"
    assert settings["input order"] == "doc_id, query_id"
    columns = yaml.safe_load(settings["input columns of queries"])
    assert columns == {"query_id": "_id", "query": "text"}
