"""What a report says equals what its files say, computed here in another way."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

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
    # Scores, for wide and for narrow screens, and three distributions of tokens.
    assert sum(counts) == 5 * 57


def test_rejected_rows_are_counted_and_found_in_the_input(page: Page, job: Scored) -> None:
    assert page.rows_below("Reason", "Meaning", "Rows") == [
        ["NULL_QUERY", "The query is null.", "2"],
        ["EMPTY_QUERY", "The query is empty or blank, or holds no token.", "1"],
    ]
    pairs = job.folder.parent / "pairs"
    examples = page.rows_below("Reason", "Query id", "Document id", "Input file", "Row, from 0")
    assert examples == [
        ["NULL_QUERY", "q4", "d4", str(pairs / "a.parquet"), "4"],
        ["NULL_QUERY", "q3", "d33", str(pairs / "b.parquet"), "8"],
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
    heads = ("Run", "Started, UTC", "Took", "End", "Units", "Rows", "Workers", "Engine")
    found = page.rows_below(*heads, "Pairs/s", "Engine busy")
    assert [row[0] for row in found] == ["run 1", "run 2"]
    for row, run in zip(found, runs, strict=True):
        units = run["units"]
        num_rows = str(sum(u["num_rows"] for u in units))
        assert row[3:8] == ["complete", str(len(units)), num_rows, "1", "fake"]
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
    (hardware,) = {unit["hardware"] for unit in units}
    shown = page.tiles["Pairs/s"].removesuffix(f"1 worker: {hardware}")
    assert _number(shown) == pytest.approx(pairs_per_second, rel=0.01)
    mean = f"{num_tokens / num_prompts:.1f}"
    assert page.tiles["Prompt tokens/s"].endswith(f"{mean} tokens per prompt")


def test_cost_is_workers_times_hours_times_price(page: Page, runs: list[dict[str, Any]]) -> None:
    hours = sum(run["finished_at"] - run["started_at"] for run in runs) / 3600
    costs = {row[0]: row[1] for row in page.all_rows() if " USD" in row[-1]}
    assert costs["Total"].endswith(f"{hours:.3f} worker-hours at 3.50 USD")
    assert page.tiles["Cost"].startswith(f"{hours * 3.5:.2f} USD")


def test_cost_of_more_pairs_is_that_of_scoring_alone(
    page: Page, runs: list[dict[str, Any]]
) -> None:
    """Starting engines costs the same for any number of pairs, so it is not multiplied."""
    seconds = 0.0
    for run in runs:
        units = run["units"]
        first = min(unit["started_at"] + unit["read_seconds"] for unit in units)
        seconds += max(unit["finished_at"] - unit["commit_seconds"] for unit in units) - first
    num_rows = sum(unit["num_rows"] for run in runs for unit in run["units"])
    (found,) = [row[1] for row in page.all_rows() if row[0] == "Per million more pairs"]
    price, currency, *_ = found.split()
    expected = seconds / 3600 * 3.5 / num_rows * 1e6
    assert _number(price) == pytest.approx(expected, rel=0.02, abs=0.01)
    assert currency == "USD"


def test_engine_busy_means_the_same_everywhere(page: Page, runs: list[dict[str, Any]]) -> None:
    meaning = "from each worker's first engine call to its last"
    busy = sum(unit["engine_seconds"] for run in runs for unit in run["units"])
    scoring = 0.0
    for run in runs:
        units = run["units"]
        first = min(unit["started_at"] + unit["read_seconds"] for unit in units)
        scoring += max(unit["finished_at"] - unit["commit_seconds"] for unit in units) - first
    shown, note = page.tiles["Engine busy"].split("%")
    assert note == meaning
    assert float(shown.replace("<", "")) == pytest.approx(100 * busy / scoring, abs=0.06)
    assert page.text.count(meaning) == 3, "the tile, the cost, the runs"
    assert "without engine work" not in page.text.lower()


def test_speed_and_cost_say_on_which_hardware(page: Page, runs: list[dict[str, Any]]) -> None:
    (hardware,) = {unit["hardware"] for run in runs for unit in run["units"]}
    cores = len(os.sched_getaffinity(0))
    assert hardware.startswith(f"{cores} core{'s' if cores > 1 else ''} of ")
    assert page.tiles["Pairs/s"].endswith(f"1 worker: {hardware}")
    assert f"Measured on 1 worker: {hardware}." in page.text
    assert f"On 1 worker: {hardware}. A worker is paid" in page.text


def test_head_says_when_how_and_on_what(page: Page, runs: list[dict[str, Any]]) -> None:
    begin = time.strftime("%Y-%m-%d %H:%M", time.gmtime(runs[0]["started_at"]))
    about = dict(page.tables()[0])
    assert about["Scored"].startswith(begin) and about["Scored"].endswith(" UTC, 2 runs")
    assert about["Engine"] == "fake; dtype auto"
    assert about["Protocol"] == "card, at most 60 tokens per prompt"


def test_many_truncated_documents_are_a_warning(page: Page) -> None:
    warnings = [element.text for element in page.all("div", "warns")]
    assert [text[:8] for text in warnings] == ["Rejected", "Truncate"]
    assert "of the documents were cut: the model saw only their beginning" in page.text


def test_configuration_and_versions_are_told(page: Page, job: Scored) -> None:
    settings = dict(row for row in page.all_rows() if len(row) == 2)
    assert settings["protocol.max_length"] == "60"
    assert settings["engine.method"] == "fake"
    assert settings["model.name"].endswith(settings["model.name"].rpartition("/")[2])
    assert settings["input"] == f"{job.folder.parent / 'pairs' / 'a.parquet'} and 1 more"
    assert settings["rgpt-batch"] == "0.1.0"
    assert "max_rows: 10" in page.text


def test_settings_are_spelled_as_in_the_configuration(page: Page) -> None:
    settings = dict(row for row in page.all_rows() if len(row) == 2)
    assert settings["model.trust_remote_code"] == "false"
    assert settings["output.pair_hash"] == "true"
    assert settings["output.pass_through"] == "[bm25]"
    assert settings["input.columns.query_id"] == "query_id"
    assert yaml.safe_load(settings["engine.vllm_args"]) == {}
    assert {"True", "False", "None"}.isdisjoint(settings.values())


def test_the_summary_tells_the_same(job: Scored, tmp_path: Path) -> None:
    assert write_report(job.folder, "--to", tmp_path / "r.html").exit_code == 0
    text = (tmp_path / "r.md").read_text()
    lines = text.splitlines()
    assert "| Rows | 60; 5 queries |" in lines
    assert "| Rejected | 3; 5.0% of the rows |" in lines
    pairs = str(job.folder.parent / "pairs" / "a.parquet").replace("_", r"\_")
    assert rf"| NULL\_QUERY | q4 | d4 | {pairs} | 4 |" in [line.rstrip() for line in lines]
    assert [line.rstrip() for line in lines if line.startswith("| run ")][1].count("|") == 11
    assert any(line.startswith("**Invented scores. ") for line in lines)
    assert "NaN" not in text and "None" not in text


def _place(job: Scored, number: int) -> tuple[str, str]:
    """Shard and row of a document: the first shard holds 25."""
    name, row = ("a", number) if number < 25 else ("b", number - 25)
    return str(job.folder.parent / "pairs" / f"{name}.parquet"), str(row)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
