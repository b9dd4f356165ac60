"""Rows that are clustered by document: none is lost, doubled or changed.

Whole jobs with the fake engine, whose score of a pair depends on nothing but its texts. Every job
takes under a second.
"""

from __future__ import annotations

import datetime
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch import run_job, verify_output
from rgpt_batch.commands.inspection import status
from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError
from rgpt_batch.importing.joined import TextTables
from rgpt_batch.job.run_job import retry_failed
from rgpt_batch.output import open_store
from rgpt_batch.output.score_file import read_footer, serialize
from rgpt_batch.output.store import Store
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.ranking.rank import rank
from rgpt_batch.records import Score, UnitFailure
from tests.jobs import Scored, column_chunk, fake_config, overwrite, read_output
from tests.report.jobs import write_report
from tests.report.pages import Page

DOCUMENT = "units.order=document"
RESTORED = (DOCUMENT, "output.order=input")
PASSED = ("rank", "label", "day", "tags", "nothing", "docno")
Run = Callable[..., Scored]


def write_input(folder: Path) -> Path:
    """Two shards in query order: 12 queries with 10 of 15 documents; some rows get no score."""
    chooser = random.Random(0)
    rows: list[tuple[str | None, ...]] = []
    for query in range(12):
        for document in chooser.sample(range(15), 10):
            text = f"Document {document} is told " + "again and " * (document % 5)
            rows.append((f"{query}", f"what is number {query}", f"{100 + document}", text))
    rows[7] = ("0", None, "100", "no query")
    rows[50] = ("5", "no document", "107", None)
    rows[90] = ("9", " ", "103", "blank query")
    # The same pair once more.
    rows.append(rows[0])
    folder.mkdir()
    labels, tags = pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.string())
    day, pause = datetime.datetime(2026, 1, 1), datetime.timedelta(hours=7)
    for name, part in (("a", rows[:65]), ("b", rows[65:])):
        query_ids, queries, doc_ids, documents = zip(*part, strict=True)
        # The same columns, written by two programs.
        id_type = pa.int64() if name == "b" else pa.string()
        text_type = pa.large_string() if name == "b" else pa.dictionary(pa.int32(), pa.string())
        numbers = range(len(part))
        table = {
            "qid": pa.array([int(i) for i in query_ids] if name == "b" else query_ids, id_type),
            "docno": pa.array(doc_ids, pa.string()),
            "query": pa.array(queries, pa.string()),
            "text": pa.array(documents, text_type),
            "rank": pa.array(numbers, pa.int16()),
            "label": pa.array([f"é{i % 3}" for i in numbers]).cast(labels),
            "day": pa.array([day + i * pause for i in numbers], pa.timestamp("ns")),
            "tags": pa.array([[f"t{i}"] * (i % 3) or None for i in numbers], tags),
            "nothing": pa.nulls(len(part)),
        }
        pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=17)
    return folder


@pytest.fixture
def run(tiny_tokenizer: Path, tmp_path: Path) -> Run:
    """Score an input in units of about 20 rows."""
    given = write_input(tmp_path / "in")

    def run_one(*overrides: str, name: str = "out", inputs: Path = given, **options: Any) -> Scored:
        config = fake_config(
            tiny_tokenizer,
            "units.max_rows=20",
            "input.join_memory_gib=0.25",
            f"output.pass_through=[{','.join(PASSED if inputs == given else ())}]",
            *overrides,
        )
        output = tmp_path / name
        summary = run_job(config, [str(inputs)], str(output), quiet=True, **options)
        return Scored(summary=summary, table=read_output(output), folder=output)

    return run_one


def in_input_order(scored: Scored) -> list[dict[str, Any]]:
    return sorted(scored.rows, key=lambda row: (row["source_file"], row["source_row"]))


def plan_of(scored: Scored) -> Manifest:
    manifest = open_store(str(scored.folder)).load_manifest()
    assert manifest is not None
    return manifest


def documents_of_parts(folder: Path) -> list[list[str | None]]:
    parts = sorted(folder.glob("part-*.parquet"))
    return [pq.read_table(part, columns=["doc_id"])["doc_id"].to_pylist() for part in parts]


def test_clustered_rows_are_those_of_input_order(run: Run) -> None:
    plain = run("output.source=true", name="plain")
    clustered = run(DOCUMENT)
    assert clustered.summary.num_rows == 121
    assert clustered.rows != plain.rows
    assert in_input_order(clustered) == plain.rows
    assert clustered.table.schema.remove_metadata() == plain.table.schema.remove_metadata()
    assert clustered.summary.num_rejected == plain.summary.num_rejected
    assert len(plain.summary.num_rejected) == 3
    assert verify_output(clustered.folder).problems == ()


def test_no_unit_shares_a_document_with_another(run: Run) -> None:
    parts = documents_of_parts(run(DOCUMENT).folder)
    assert len(parts) > 4
    # Rows without a text are no document's.
    homes = Counter(document for part in parts for document in set(part))
    assert {document for document, count in homes.items() if count > 1} <= {"100", "103", "107"}
    apart = documents_of_parts(run(name="plain").folder)
    assert sum(len(set(part)) for part in apart) > 3 * sum(len(set(part)) for part in parts)


def test_rows_come_back_in_input_order(run: Run) -> None:
    plain, restored = run(name="plain"), run(*RESTORED)
    assert restored.table.equals(plain.table)
    names = [path.name for path in sorted(plain.folder.glob("part-*.parquet"))]
    assert [path.name for path in sorted(restored.folder.glob("part-*.parquet"))] == names
    assert documents_of_parts(restored.folder) == documents_of_parts(plain.folder)
    assert restored.summary.num_rejected == plain.summary.num_rejected
    assert (restored.folder / "_SUCCESS").exists()
    assert verify_output(restored.folder).problems == ()
    # The units that were scored hold whole documents.
    parts = documents_of_parts(restored.folder / "_rgpt" / "scored")
    assert len(set(map(tuple, parts))) == len(plan_of(restored).clustered) > 4


def test_logprobs_and_sources_come_back_too(run: Run) -> None:
    columns = ("output.query_token_logprobs=true", "output.source=true")
    plain, restored = run(*columns, name="plain"), run(*RESTORED, *columns)
    assert restored.table.equals(plain.table)


@pytest.mark.parametrize("order", [(DOCUMENT,), RESTORED])
def test_a_job_that_is_complete_is_not_clustered_again(run: Run, order: tuple[str, ...]) -> None:
    first = run(*order)
    shutil.rmtree(next((first.folder / "_rgpt").glob("pairs-*")))
    again = run(*order)
    assert (again.summary.exit_code, again.summary.num_rows_scored) == (0, 0)
    assert again.table.equals(first.table)


def test_a_lost_file_is_written_again_without_scoring(run: Run) -> None:
    first = run(*RESTORED)
    (first.folder / "part-000002.parquet").unlink()
    again = run(*RESTORED)
    assert (again.summary.exit_code, again.summary.num_rows_scored) == (0, 0)
    assert again.table.equals(first.table)


def test_a_lost_scored_file_is_scored_again(run: Run) -> None:
    first = run(*RESTORED)
    lost = first.folder / "_rgpt" / "scored" / "part-000001.parquet"
    num_lost = pq.read_metadata(lost).num_rows
    for path in (lost, first.folder / "part-000000.parquet"):
        path.unlink()
    again = run(*RESTORED)
    assert (again.summary.exit_code, again.summary.num_rows_scored) == (0, num_lost)
    assert again.table.equals(first.table)


def test_scores_of_another_job_are_not_mixed_in(run: Run) -> None:
    first = run(*RESTORED)
    other = run(*RESTORED, "protocol.max_length=30", name="other")
    part = Path("_rgpt", "scored", "part-000001.parquet")
    shutil.copy(other.folder / part, first.folder / part)
    (first.folder / "part-000000.parquet").unlink()
    with pytest.raises(ShardError, match=r"000001\.parquet: belongs to another job.*Delete it"):
        run(*RESTORED)
    (first.folder / part).unlink()
    assert run(*RESTORED).table.equals(first.table)


def test_a_scored_row_that_is_there_twice_is_noticed(run: Run) -> None:
    first = run(*RESTORED)
    part = first.folder / "_rgpt" / "scored" / "part-000001.parquet"
    table = pq.read_table(part)
    twice = table.take(pa.array([1, *range(1, table.num_rows)]))
    pq.write_table(twice.replace_schema_metadata(table.schema.metadata), part)
    (first.folder / "part-000000.parquet").unlink()
    with pytest.raises(ShardError, match="are not there once each"):
        run(*RESTORED)


def test_verify_finds_rows_of_the_input_that_were_clustered_twice(run: Run) -> None:
    folder = run(DOCUMENT).folder
    (shard,) = (folder / "_rgpt").glob("pairs-*/*.parquet")
    table = pq.read_table(shard)
    pq.write_table(table.take(pa.array([1, *range(1, table.num_rows)])), shard)
    for path in (*folder.glob("part-*"), folder / "_SUCCESS", *folder.glob("_rgpt/plan-*")):
        path.unlink()
    # The clustered pairs are taken for what an earlier run has made.
    assert run(DOCUMENT).summary.exit_code == 0
    (problem,) = verify_output(folder).problems
    assert "a.parquet: its rows are not there once each" in problem or "b.parquet" in problem


def test_rows_that_killed_the_engine_are_named_where_they_were_scored(run: Run) -> None:
    first = run(*RESTORED)
    part = first.folder / "_rgpt" / "scored" / "part-000002.parquet"
    footer, _ = read_footer(str(part))
    # As if an engine had died with this row.
    table = pq.read_table(part)
    rows = table.to_pylist()
    victim = next(index for index, row in enumerate(rows) if row["score"] is not None)
    for name in (*Score.__dataclass_fields__, "score", "pair_hash"):
        if name in rows[victim]:
            rows[victim][name] = None
    rows[victim]["rejection"] = "ENGINE_CRASH"
    crashed = pa.Table.from_pylist(rows, table.schema.remove_metadata())
    footer = footer.model_copy(update={"num_rejected": {"ENGINE_CRASH": 1}})
    part.write_bytes(serialize(crashed, footer))
    for path in (*first.folder.glob("part-*"), first.folder / "_SUCCESS"):
        path.unlink()
    again = run(*RESTORED)
    (problem,) = again.summary.problems
    assert again.summary.exit_code == 3
    assert "1 rows have no score" in problem and "part-000002.parquet of" in problem
    # What it advises.
    part.unlink()
    for path in first.folder.glob("part-*"):
        path.unlink()
    assert run(*RESTORED).table.equals(first.table)


def test_status_counts_what_is_scored_until_the_output_is_there(run: Run) -> None:
    folder = run(*RESTORED).folder
    for path in (*folder.glob("part-*"), folder / "_rgpt" / "scored" / "part-000001.parquet"):
        path.unlink()
    shown = json.loads(CliRunner().invoke(status, [str(folder), "--json"]).stdout)
    num_units = len(plan_of(run(DOCUMENT, name="other")).units)
    assert (shown["num_units"], shown["num_units_committed"]) == (num_units, num_units - 1)
    assert 80 < shown["num_rows_committed"] < 121 == shown["num_rows"]
    run(*RESTORED)
    shown = json.loads(CliRunner().invoke(status, [str(folder), "--json"]).stdout)
    assert (shown["num_rows_committed"], shown["complete"]) == (121, True)


@pytest.mark.parametrize("order", [(DOCUMENT,), RESTORED])
def test_failed_units_are_scored_again_as_planned(run: Run, order: tuple[str, ...]) -> None:
    first = run(*order)
    scored = first.folder / ("_rgpt/scored" if order == RESTORED else "")
    for path in {*first.folder.glob("part-*"), scored / "part-000003.parquet"}:
        if path.name == "part-000003.parquet" or path.parent != scored:
            path.unlink()
    store: Store = open_store(str(first.folder))
    store.add_failure(UnitFailure(unit_id="000003", num_rows=9, num_attempts=3, cause="x"))
    summary = retry_failed(first.folder, quiet=True)
    assert summary.exit_code == 0
    assert 0 < summary.num_rows_scored < 40
    assert read_output(first.folder).equals(first.table)
    assert store.failed_unit_ids() == set()


@pytest.mark.parametrize("old_order", [(), (DOCUMENT,), RESTORED])
@pytest.mark.parametrize("new_order", [(), (DOCUMENT,), RESTORED])
def test_scores_are_reused_whatever_the_order(
    run: Run, old_order: tuple[str, ...], new_order: tuple[str, ...]
) -> None:
    old = run(*old_order, name="old")
    fresh = run(*new_order, name="fresh")
    new = run(*new_order, name="new", reuse=old.folder)
    assert new.table.equals(fresh.table)
    assert new.summary.num_prompt_tokens == 0


def test_another_order_is_another_job(run: Run) -> None:
    run()
    with pytest.raises(ManifestMismatch, match=r"order of rows: was the input's.*is by document"):
        run(DOCUMENT)
    with pytest.raises(ManifestMismatch, match=r"is the input's, scored by document"):
        run(*RESTORED)
    restored = run(*RESTORED, on_change="overwrite")
    assert restored.table.equals(run(name="plain").table)
    with pytest.raises(ManifestMismatch, match=r"was the input's, scored by document"):
        run()


def test_a_ranking_does_not_depend_on_the_order(run: Run, tmp_path: Path) -> None:
    rankings = []
    for name, order in (("plain", ()), ("clustered", (DOCUMENT,)), ("restored", RESTORED)):
        scored = run(*order, name=name)
        rank(scored.folder, tmp_path / f"{name}.parquet", top_k=5, duplicates="max")
        rankings.append(pq.read_table(tmp_path / f"{name}.parquet").to_pylist())
    assert rankings[0] == rankings[1] == rankings[2] != []


def test_a_report_names_the_input_file_and_row(run: Run, tmp_path: Path) -> None:
    plain = run("output.source=true", name="plain")
    expected = {
        (row["source_file"], str(row["source_row"])): (row["query_id"], row["doc_id"])
        for row in plain.rows
        if row["rejection"]
    }
    clustered = run(DOCUMENT)
    html = tmp_path / "report.html"
    result = write_report(clustered.folder, "--to", html)
    assert result.exit_code == 0, result.output
    rows = Page.read(html).rows_below(
        "Reason", "Query id", "Document id", "Input file", "Row, from 0"
    )
    assert {(file, row): (query, document) for _, query, document, file, row in rows} == expected


def test_rows_that_cannot_be_read_keep_their_place(run: Run, tmp_path: Path) -> None:
    given = write_input(tmp_path / "damaged")
    # A damaged page, and bytes that are no text.
    offset, _ = column_chunk(given / "a.parquet", 1, "docno")
    overwrite(given / "a.parquet", offset + 5, b"\xff" * 40)
    texts = pa.array([b"fine", b"\xff\xfe", b"fine"], pa.binary())
    bad = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    columns = {"qid": ["1", "2", "3"], "docno": bad, "query": bad, "text": ["x", "y", "z"]}
    pq.write_table(pa.table(columns), given / "c.parquet")
    plain = run("output.source=true", name="plain", inputs=given)
    clustered = run(DOCUMENT, name="clustered", inputs=given)
    restored = run(*RESTORED, "output.source=true", name="restored", inputs=given)
    assert plain.summary.num_rejected["UNREADABLE"] == 17
    assert plain.summary.num_rejected["INVALID_TEXT"] == 1
    assert in_input_order(clustered) == plain.rows
    assert restored.table.equals(plain.table)
    assert clustered.summary.exit_code == restored.summary.exit_code == 3
    assert clustered.summary.problems == restored.summary.problems == plain.summary.problems


@pytest.mark.parametrize("order", [(DOCUMENT,), RESTORED])
def test_an_input_without_rows_gives_an_output_with_a_schema(
    run: Run, tmp_path: Path, order: tuple[str, ...]
) -> None:
    columns = {name: pa.array([], pa.string()) for name in ("qid", "docno", "query", "text")}
    pq.write_table(pa.table(columns), tmp_path / "empty.parquet")
    empty = run(*order, inputs=tmp_path / "empty.parquet")
    assert (empty.summary.exit_code, empty.summary.num_rows) == (0, 0)
    assert "score" in empty.table.column_names


def test_dictionaries_of_several_files_need_not_fit_the_index_of_one(
    tiny_tokenizer: Path, tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    for name in ("a", "b"):
        labels = pa.array([f"{name}{i}" for i in range(100)], pa.dictionary(pa.int8(), pa.string()))
        write_pairs(100, f"in/{name}.parquet", extra={"label": labels})
    for order in ((DOCUMENT,), RESTORED):
        config = fake_config(tiny_tokenizer, *order, "output.pass_through=[label]")
        output = tmp_path / order[-1]
        run_job(config, tmp_path / "in", output, quiet=True)
        found = read_output(output)["label"].to_pylist()
        expected = [f"{name}{i}" for name in ("a", "b") for i in range(100)]
        assert found == expected if order == RESTORED else sorted(found) == sorted(expected)


def test_a_document_with_more_rows_than_a_unit_holds_is_cut(
    run: Run, tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    pairs = [(f"query {i}", "the one document") for i in range(90)]
    scored = run(DOCUMENT, inputs=write_pairs(pairs))
    assert [unit.num_rows for unit in plan_of(scored).units] == [18] * 5
    assert sorted(row["source_row"] for row in scored.rows) == list(range(90))


@pytest.mark.parametrize(
    ("num_queries", "expected"), [(1, "input"), (8, "document")], ids=["once", "often"]
)
def test_auto_clusters_where_documents_repeat(
    run: Run, write_pairs: Callable[..., Path], num_queries: int, expected: str
) -> None:
    pairs = [(f"query {q}", f"text {d}") for q in range(num_queries) for d in range(50)]
    ids = [f"d{d}" for _ in range(num_queries) for d in range(50)]
    path = write_pairs(pairs, extra={"doc_id": ids})
    first = run("units.order=auto", inputs=path)
    facts = plan_of(first).identity.input
    assert facts.kind == "pairs" and facts.order == expected
    # What was decided stays, and is the same job as if it had been said.
    for order in ("auto", expected):
        again = run(f"units.order={order}", inputs=path)
        assert (again.summary.exit_code, again.summary.num_rows_scored) == (0, 0)


def test_what_does_not_go_with_an_order_is_refused(
    run: Run, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    given = [str(tmp_path / "in")]
    config = fake_config(tiny_tokenizer, DOCUMENT)
    with pytest.raises(ConfigError, match="--order document needs an output folder on a file"):
        run_job(config, given, "s3://bucket/out", quiet=True)
    config = fake_config(tiny_tokenizer, "output.order=input")
    given = [str(tmp_path / "in" / "a.parquet")]
    texts = TextTables(queries=given[0])
    with pytest.raises(ConfigError, match=r"output\.order=input does not go with"):
        run_job(config, given, tmp_path / "out", tables=texts, quiet=True)
