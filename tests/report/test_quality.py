"""Quality in a report: the numbers of `evaluate`, and the queries that change."""

from __future__ import annotations

from pathlib import Path

import pytest

from rgpt_batch.errors import ConfigError
from rgpt_batch.output import open_store
from rgpt_batch.ranking.evaluate import evaluate
from rgpt_batch.report import gather
from tests.jobs import Scored, fake_config, score
from tests.ranking.files import feeding
from tests.report.jobs import UNITS, write_pairs, write_report
from tests.report.pages import DASH, MINUS, Page

CHANGES = ("Query", "Id", "Baseline", "Run", "Difference")


@pytest.fixture
def page(job: Scored, qrels: Path, bm25: Path, tmp_path: Path) -> Page:
    path = tmp_path / "report.html"
    result = write_report(job.folder, "--to", path, "--qrels", qrels, "--baseline", bm25)
    assert result.exit_code == 0, result.output
    return Page.read(path)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", MINUS)


def test_metrics_are_those_of_evaluate(page: Page, job: Scored, qrels: Path, bm25: Path) -> None:
    expected = evaluate(str(job.folder), str(qrels), baseline=str(bm25)).metrics
    interval = "95% interval"
    heads = ("Metric", "Run", interval, "Baseline", interval, "Difference", interval, "p")
    rows = page.rows_below(*heads)
    assert [row[0] for row in rows] == ["nDCG@10", "RR@10", "R@100", "AP"]
    for row, result in zip(rows, expected, strict=True):
        assert result.baseline and result.difference and result.p_value
        assert row[1] == f"{result.run.mean:.4f}"
        assert row[2] == f"[{result.run.low:.4f}, {result.run.high:.4f}]"
        assert row[3] == f"{result.baseline.mean:.4f}"
        assert row[5] == _signed(result.difference.mean)
        assert row[6] == f"[{_signed(result.difference.low)}, {_signed(result.difference.high)}]"
        assert row[7] == f"{result.p_value:.4f}"
    assert expected[0].difference and expected[0].difference.mean != 0


def test_every_query_that_changes_is_listed_with_its_text(
    page: Page, job: Scored, qrels: Path, bm25: Path
) -> None:
    found = evaluate(str(job.folder), str(qrels), baseline=str(bm25))
    assert found.baseline_per_query is not None
    differences = dict(
        zip(found.query_ids, found.per_query[:, 0] - found.baseline_per_query[:, 0], strict=True)
    )
    ordered = sorted(differences, key=lambda query_id: differences[query_id])
    losses = [query_id for query_id in ordered if differences[query_id] < 0]
    gains = [query_id for query_id in ordered[::-1] if differences[query_id] > 0]
    assert gains and losses, "the data must show both"
    tables = page.tables_below(*CHANGES)
    assert [[row[1] for row in table] for table in tables] == [gains, losses]
    for row in (row for table in tables for row in table):
        assert row[0] == f"what is number {row[1][1:]}"
        assert row[4] == _signed(differences[row[1]])
    titles = {title.text for title in page.all("title")}
    assert {f"{q}: {_signed(d)}" for q, d in differences.items()} <= titles


def test_queries_are_told_without_texts_when_the_input_is_gone(
    tiny_tokenizer: Path, qrels: Path, bm25: Path, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    options = (*UNITS, "output.pass_through=[bm25]")
    scored = score(fake_config(tiny_tokenizer, *options), [pairs], tmp_path / "scored")
    for shard in pairs.iterdir():
        shard.unlink()
    path = tmp_path / "r.html"
    result = write_report(scored.folder, "--to", path, "--qrels", qrels, "--baseline", bm25)
    assert result.exit_code == 0, result.output
    assert {row[0] for t in Page.read(path).tables_below(*CHANGES) for row in t} == {DASH}


def test_texts_come_from_the_output_if_it_holds_them(
    tiny_tokenizer: Path, qrels: Path, bm25: Path, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    options = (*UNITS, "output.pass_through=[query]")
    scored = score(fake_config(tiny_tokenizer, *options), [pairs], tmp_path / "scored")
    for shard in pairs.iterdir():
        shard.unlink()
    path = tmp_path / "r.html"
    result = write_report(scored.folder, "--to", path, "--qrels", qrels, "--baseline", bm25)
    assert result.exit_code == 0, result.output
    rows = [row for table in Page.read(path).tables_below(*CHANGES) for row in table]
    assert rows and all(row[0] == f"what is number {row[1][1:]}" for row in rows)


def test_without_a_baseline_there_are_metrics_alone(
    job: Scored, qrels: Path, tmp_path: Path
) -> None:
    path = tmp_path / "r.html"
    assert (
        write_report(job.folder, "--to", path, "--qrels", qrels, "--metrics", "P@1").exit_code == 0
    )
    page = Page.read(path)
    ((name, value, _),) = page.rows_below("Metric", "Run", "95% interval")
    expected = evaluate(str(job.folder), str(qrels), metrics="P@1").metrics[0].run.mean
    assert (name, value) == ("P@1", f"{expected:.4f}")
    assert "Gains and losses" not in page.text


def test_quality_spills_to_the_folder_that_was_given(job: Scored, tmp_path: Path) -> None:
    temp_folder, judged = tmp_path / "temp", tmp_path / "judged"
    temp_folder.mkdir()
    # The judgements are read once the rows are counted: by then the folder holds nothing but
    # what the counting has left open, and is moved away.
    with (
        feeding(judged, "q0 0 d0 1\n", before=lambda: temp_folder.rename(tmp_path / "moved")),
        pytest.raises(ConfigError, match=r"temp: cannot hold temporary files: No such file"),
    ):
        gather(open_store(job.folder), qrels=str(judged), temp_folder=str(temp_folder))
