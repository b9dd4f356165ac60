"""Outputs that are not as they should be: unfinished, empty, rejected, of others, damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import ShardError
from rgpt_batch.job.plan import plan_job
from rgpt_batch.output import open_store
from tests.conftest import RunCli
from tests.e2e.processes import parts, rgpt_batch, started
from tests.jobs import Scored, fake_config, score
from tests.report.jobs import UNITS, write_pairs, write_report, write_shard
from tests.report.pages import Page

NO_RECORD = "No run has left a record: a run writes its record when it ends, unless it is killed."


@pytest.fixture
def output(job: Scored, tmp_path: Path) -> Path:
    """A copy of the complete output, to be spoilt."""
    return Path(shutil.copytree(job.folder, tmp_path / "scored"))


def read(output: Path, *options: str | Path) -> Page:
    path = output.parent / "report.html"
    result = write_report(output, "--to", path, *options)
    assert result.exit_code == 0, result.output
    return Page.read(path)


def notes(page: Page) -> str:
    return " ".join(element.text for element in page.all("div", "notes"))


def test_missing_units_are_told_and_the_rest_is_reported(output: Path, qrels: Path) -> None:
    (output / "_SUCCESS").unlink()
    num_rows = pq.read_metadata(output / "part-000002.parquet").num_rows
    (output / "part-000002.parquet").unlink()
    page = read(output, "--qrels", qrels)
    assert page.all("span", "state")[0].text == "unfinished"
    assert page.tiles["Rows"].startswith(f"{60 - num_rows}of 60")
    assert f"1 of 7 units ({num_rows} rows) are not scored yet." in notes(page)
    assert "Not evaluated: the job has not finished" in notes(page)
    assert "Metric" not in [cell for row in page.all_rows() for cell in row]


def test_a_success_that_names_a_missing_file_is_not_believed(output: Path, qrels: Path) -> None:
    (output / "part-000002.parquet").unlink()
    page = read(output, "--qrels", qrels)
    assert page.all("span", "state")[0].text == "unfinished"
    assert (
        "The output does not count as complete: its _SUCCESS is out of date: part-000002.parquet "
        "is missing."
    ) in notes(page)
    assert "Not evaluated: the job has not finished" in notes(page)


def test_a_killed_run_leaves_no_record_and_the_report_says_so(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    pairs, output = write_pairs(tmp_path / "pairs"), tmp_path / "scored"
    command = rgpt_batch(
        *("score", "-i", pairs, "--output", output, "--model", tiny_tokenizer),
        *("--executor", "local", "-o", "engine.method=fake", "-o", UNITS[0]),
        # Four more seconds after the kill.
        *("-o", "engine.fake_seconds_per_pair=0.1"),
    )
    with started(command, tmp_path / "log") as process:
        process.wait_until(lambda: len(parts(output)) >= 2)
        process.kill_group()
    page = read(output, "--price-per-hour", "1")
    num_rows = sum(pq.read_metadata(part).num_rows for part in parts(output))
    assert page.tiles["Rows"].startswith(f"{num_rows}of 60")
    assert f"No run record speaks of {num_rows} of the committed rows" in notes(page)
    assert NO_RECORD in page.text
    assert page.tiles["Cost"].startswith("0.00")
    assert "Pairs/s" not in page.tiles


def test_a_planned_job_without_rows_has_a_report(tiny_tokenizer: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    output = tmp_path / "scored"
    _, manifest = plan_job(fake_config(tiny_tokenizer, *UNITS), [str(pairs)], str(output))
    open_store(str(output)).save_manifest(manifest)
    page = read(output)
    assert page.all("span", "state")[0].text == "planned"
    assert page.tiles == {"Rows": "0of 60"}
    assert NO_RECORD in page.text


def test_an_output_of_rejected_rows_alone_has_no_scores(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    shard = write_shard(tmp_path / "pairs.parquet", [None] * 12, 0)
    scored = score(fake_config(tiny_tokenizer), [shard], tmp_path / "scored")
    page = read(scored.folder)
    assert "No row has a score: all 12 committed rows are rejected." in page.text
    assert page.rows_below("Reason", "Meaning", "Rows") == [
        ["NULL_QUERY", "The query is null.", "12"]
    ]
    assert page.tiles["Rejected"] == "12100% of the rows"


def test_an_output_without_any_row_has_a_report(tiny_tokenizer: Path, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "pairs.parquet", [], 0)
    scored = score(fake_config(tiny_tokenizer), [shard], tmp_path / "scored")
    page = read(scored.folder)
    assert page.tiles["Rows"] == "00 queries"
    assert "the input has no row" in page.text


def test_sections_without_content_are_left_out(tiny_tokenizer: Path, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "pairs.parquet", ["what is it"] * 12, 0)
    page = read(score(fake_config(tiny_tokenizer), [shard], tmp_path / "scored").folder)
    assert page.tiles["Rejected"] == page.tiles["Truncated"] == "00% of the rows"
    headings = [heading.text for heading in page.all("h2")]
    assert headings == ["Speed", "Scores, invented", "Tokens", "Runs", "Configuration and versions"]


def test_the_cause_of_a_stopped_run_is_told(output: Path) -> None:
    (output / "_SUCCESS").unlink()
    (output / "part-000002.parquet").unlink()
    record = max((output / "_rgpt" / "runs").iterdir())
    entry = json.loads(record.read_bytes())
    entry |= {"state": "stopped", "cause": "Interrupted: stopped by signal 15"}
    del entry["summary"]
    record.write_text(json.dumps(entry))
    page = read(output)
    assert "The last run ended so: Interrupted: stopped by signal 15" in notes(page)
    assert "Run 2: Interrupted: stopped by signal 15" in page.text


def test_records_of_another_version_are_left_out_and_counted(output: Path) -> None:
    (output / "_rgpt" / "runs" / "0-foreign.json").write_text('{"units": [{"rows": 3}]}')
    page = read(output)
    assert "1 run record was written by another version" in notes(page)
    runs = next(table for table in page.tables() if table[0][:1] == ["Run"])
    assert [row[0] for row in runs[1:]] == ["run 1", "run 2"]


def test_files_that_are_not_of_the_job_are_not_counted(output: Path) -> None:
    shutil.copy(output / "part-000001.parquet", output / "part-000077.parquet")
    page = read(output)
    assert page.tiles["Rows"].startswith("60of 60; 5 queries")
    assert "part-000077.parquet is not named there. Running the same command" in notes(page)


def test_a_damaged_file_is_an_error_and_the_old_report_stays(output: Path) -> None:
    assert write_report(output).exit_code == 0
    before = (output / "_rgpt" / "report.html").read_bytes()
    (output / "part-000003.parquet").write_bytes(b"PAR1 no more")
    result = write_report(output)
    assert isinstance(result.exception, ShardError)
    assert "part-000003.parquet" in str(result.exception)
    assert (output / "_rgpt" / "report.html").read_bytes() == before


@pytest.mark.parametrize("content", [None, "notes.txt", "_rgpt/status.json", "part-000000.parquet"])
def test_a_folder_that_is_no_output_is_an_error(
    content: str | None, tmp_path: Path, run_cli: RunCli
) -> None:
    folder = tmp_path / "folder"
    (folder / "_rgpt").mkdir(parents=True) if content == "_rgpt/status.json" else folder.mkdir()
    if content:
        (folder / content).write_text("{}")
    before = sorted(folder.rglob("*"))
    done = run_cli("report", folder)
    assert done.returncode == 2
    assert done.stderr == f"rgpt-batch: {folder}: no job was planned here; nothing to report.\n"
    assert sorted(folder.rglob("*")) == before
