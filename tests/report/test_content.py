"""What a report says equals what its files say, computed here in another way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rgpt_batch.report.rows import NUM_EXAMPLES
from tests.jobs import Scored
from tests.report.jobs import write_report
from tests.report.pages import MINUS, Page


@pytest.fixture(scope="module")
def page(job: Scored, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "report.html"
    result = write_report(job.folder, "--to", path, "--price-per-hour", "3.5")
    assert result.exit_code == 0, result.output
    return Page.read(path)


@pytest.fixture(scope="module")
def runs(job: Scored) -> list[dict[str, Any]]:
    return [json.loads(p.read_bytes()) for p in sorted((job.folder / "_rgpt/runs").glob("*"))]


def test_the_job_is_as_the_tests_need_it(job: Scored) -> None:
    assert job.summary.num_rows_before > 0 < job.summary.num_rows_scored
    assert job.table["score"].null_count == 3
    assert 0 < sum((n or 0) > 0 for n in job.column("num_dropped_document_tokens")) < 57


def test_figures_at_the_top_are_those_of_the_rows(page: Page, job: Scored) -> None:
    num_truncated = sum((n or 0) > 0 for n in job.column("num_dropped_document_tokens"))
    assert page.tiles["Rows"] == "605 queries"
    assert page.tiles["Rejected"] == "35.0% of the rows"
    assert page.tiles["Truncated"] == f"{num_truncated}{100 * num_truncated / 60:.1f}% of the rows"
    assert [state.text for state in page.all("span", "state")] == ["complete"]


def test_distributions_are_those_of_the_rows(page: Page, job: Scored) -> None:
    heads = ("", "Mean", "Least", "5%", "25%", "Median", "75%", "95%", "Most")
    tables = page.tables_below(*heads)
    ((name, *found),) = tables[0]
    scores = np.array([s for s in job.column("score") if s is not None], np.float64)
    assert name == "Score, nats"
    assert float(found[0].replace(MINUS, "-")) == pytest.approx(scores.mean(), abs=0.0051)
    expected = [np.quantile(scores, q, method="inverted_cdf") for q in (0, 0.05, 0.25, 0.5, 0.75)]
    expected += [np.quantile(scores, 0.95, method="inverted_cdf"), scores.max()]
    values = [float(text.replace(MINUS, "-")) for text in found[1:]]
    assert values == pytest.approx(expected, abs=0.0061)

    documents, queries, texts = tables[1]
    tokens = [n for n in job.column("num_document_tokens") if n is not None]
    assert documents[1:3] == [f"{np.mean(tokens):.1f}", str(min(tokens))]
    assert documents[-1] == str(max(tokens))
    assert documents[5] == str(int(np.quantile(tokens, 0.5, method="inverted_cdf")))
    assert float(queries[1]) + float(documents[1]) == pytest.approx(float(texts[1]), abs=0.11)


def test_bars_of_the_scores_hold_every_scored_row_once(page: Page) -> None:
    bars = [
        element.attributes
        for element in page.elements
        if element.tag == "rect" and element.attributes.get("class") == "bar"
    ]
    titles = [title.text for title in page.all("title") if title.text.endswith(" rows")]
    counts = [int(title.split(": ")[1].removesuffix(" rows")) for title in titles]
    assert len(bars) == len(counts)
    # Scores, and three distributions of tokens.
    assert sum(counts) == 4 * 57


def test_rejected_rows_are_counted_and_found_in_the_input(page: Page, job: Scored) -> None:
    assert page.rows_below("Reason", "Meaning", "Rows") == [
        ["NULL_QUERY", "The query is null.", "2"],
        ["EMPTY_QUERY", "The query is empty or blank, or holds no token.", "1"],
    ]
    pairs = job.folder.parent / "pairs"
    examples = page.rows_below("Reason", "Query id", "Document id", "Input file", "Row, from 0")
    assert examples == [
        ["NULL_QUERY", "q4", "d4", str(pairs / "a.parquet"), "4"],
        ["", "q3", "d33", str(pairs / "b.parquet"), "8"],
        ["EMPTY_QUERY", "q2", "d47", str(pairs / "b.parquet"), "22"],
    ]


def test_rows_that_lost_most_are_found_in_the_input(page: Page, job: Scored) -> None:
    rows = sorted(
        (row for row in job.rows if row["num_dropped_document_tokens"]),
        key=lambda row: (-row["num_dropped_document_tokens"], int(row["doc_id"][1:])),
    )[:NUM_EXAMPLES]
    heads = ("Query id", "Document id", "Tokens kept", "Dropped", "Input file", "Row, from 0")
    assert page.rows_below(*heads) == [
        [
            row["query_id"],
            row["doc_id"],
            str(row["num_document_tokens"]),
            str(row["num_dropped_document_tokens"]),
            *_place(job, int(row["doc_id"][1:])),
        ]
        for row in rows
    ]


def test_runs_are_those_of_the_records(page: Page, runs: list[dict[str, Any]]) -> None:
    heads = ("Run", "Started, UTC", "Took", "End", "Units", "Rows", "Workers", "Pairs/s")
    found = page.rows_below(*heads, "Engine busy", "Retried", "Given up")
    assert [row[0] for row in found] == ["1", "2"]
    for row, run in zip(found, runs, strict=True):
        units = run["units"]
        assert row[3:7] == [
            "complete",
            str(len(units)),
            str(sum(u["num_rows"] for u in units)),
            "1",
        ]
        assert row[9:] == ["0", "0"]
    assert [len(run["units"]) for run in runs] == [7, 2]


def test_speed_is_that_of_the_records(page: Page, runs: list[dict[str, Any]]) -> None:
    seconds = sum(
        max(unit["finished_at"] for unit in run["units"])
        - min(unit["started_at"] for unit in run["units"])
        for run in runs
    )
    units = [unit for run in runs for unit in run["units"]]
    pairs_per_second = sum(unit["num_rows"] for unit in units) / seconds
    num_tokens = sum(unit["num_prompt_tokens"] for unit in units)
    num_prompts = sum(u["num_rows"] - sum(u["num_rejected"].values()) for u in units)
    assert _number(page.tiles["Pairs/s"]) == pytest.approx(pairs_per_second, rel=0.01)
    mean = f"{num_tokens / num_prompts:.1f}"
    assert page.tiles["Prompt tokens/s"].endswith(f"{mean} tokens per prompt")


def test_cost_is_workers_times_hours_times_price(page: Page, runs: list[dict[str, Any]]) -> None:
    hours = sum(run["finished_at"] - run["started_at"] for run in runs) / 3600
    num_rows = sum(unit["num_rows"] for run in runs for unit in run["units"])
    (found,) = [row for row in page.all_rows() if row[0] == "Per million pairs"]
    assert _number(found[1]) == pytest.approx(hours * 3.5 / num_rows * 1e6, rel=0.01, abs=0.01)


def test_configuration_and_versions_are_told(page: Page, job: Scored) -> None:
    settings = dict(row for row in page.all_rows() if len(row) == 2)
    assert settings["protocol.max_length"] == "60"
    assert settings["engine.method"] == "fake"
    assert settings["input"] == f"{job.folder.parent / 'pairs' / 'a.parquet'} and 1 more"
    assert settings["rgpt-batch"] == "0.1.0"
    assert "max_rows: 10" in page.text


def test_the_summary_tells_the_same(job: Scored, tmp_path: Path) -> None:
    assert write_report(job.folder, "--to", tmp_path / "r.html").exit_code == 0
    text = (tmp_path / "r.md").read_text()
    lines = text.splitlines()
    assert "| rows | 60 of 60 |" in lines
    assert "| rejected | 3 rows, 5.0% |" in lines
    pairs = str(job.folder.parent / "pairs" / "a.parquet").replace("_", r"\_")
    assert rf"| NULL\_QUERY | 2 | q4, d4 | {pairs} | 4 |" in lines
    assert "NaN" not in text and "None" not in text


def _place(job: Scored, number: int) -> tuple[str, str]:
    """Shard and row of a document: the first shard holds 25."""
    name, row = ("a", number) if number < 25 else ("b", number - 25)
    return str(job.folder.parent / "pairs" / f"{name}.parquet"), str(row)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
