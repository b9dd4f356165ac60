"""The command itself: where files go, that they disturb no other command, exit codes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rgpt_batch import run_job, verify_output
from tests.conftest import RunCli
from tests.jobs import Scored, fake_config, score
from tests.report.jobs import UNITS, write_pairs, write_report
from tests.storage.test_written_files import reading


@pytest.fixture
def output(job: Scored, tmp_path: Path) -> Path:
    return Path(shutil.copytree(job.folder, tmp_path / "scored"))


def test_help_says_where_files_go_and_the_command_names_them(output: Path, run_cli: RunCli) -> None:
    assert "OUTPUT/_rgpt/report.html" in run_cli("report", "--help").stdout
    done = run_cli("report", output)
    assert done.returncode == 0
    assert done.stderr.startswith("warning      The fake engine wrote this output.")
    page, summary = output / "_rgpt" / "report.html", output / "_rgpt" / "report.md"
    assert done.stdout.startswith(f"report       {page}\nsummary      {summary}\nnote ")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert summary.read_text().startswith("# Scoring report: ")


def test_a_report_in_the_output_disturbs_no_other_command(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    config = fake_config(tiny_tokenizer, *UNITS)
    pairs = write_pairs(tmp_path / "pairs")
    output = score(config, [pairs], tmp_path / "scored").folder
    (output / "_SUCCESS").unlink()
    (output / "part-000000.parquet").unlink()
    assert write_report(output).exit_code == 0
    assert run_job(config, [str(pairs)], str(output), quiet=True).num_rows_scored > 0
    assert write_report(output).exit_code == 0
    assert verify_output(output).problems == ()

    other = fake_config(tiny_tokenizer, *UNITS, "protocol.max_length=30")
    summary = run_job(other, [str(pairs)], str(output), on_change="overwrite", quiet=True)
    assert summary.num_rows_scored == 60
    assert not (output / "_rgpt" / "report.html").exists(), "it spoke of the job before"


def test_the_same_output_gives_the_same_bytes(
    output: Path, qrels: Path, bm25: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        result = write_report(
            *(output, "--to", tmp_path / name / "r.html", "--qrels", qrels, "--baseline", bm25)
        )
        assert result.exit_code == 0, result.output
    for name in ("r.html", "r.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["r.html", "r.md"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--baseline", "x.trec"), "--baseline needs --qrels."),
        (("--to", "x.md"), "--to names the HTML page"),
        (("--to", "."), "is a directory"),
        (("--qrels", "nowhere.tsv"), "does not exist"),
        (("--price-per-hour", "-1"), "is not in the range"),
    ],
)
def test_wrong_use_exits_with_2(options: tuple[str, ...], message: str, output: Path) -> None:
    result = write_report(output, *options)
    assert result.exit_code == 2
    assert message in result.output


def test_an_unknown_metric_and_unjudged_queries_exit_with_2(
    output: Path, qrels: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    done = run_cli("report", output, "--qrels", qrels, "--metrics", "nDCG@ten")
    assert (done.returncode, "nDCG@ten" in done.stderr) == (2, True)
    (tmp_path / "other.tsv").write_text("x 0 y 1\n")
    done = run_cli("report", output, "--qrels", tmp_path / "other.tsv")
    assert (done.returncode, "none of its queries is judged" in done.stderr) == (2, True)
    assert not (output / "_rgpt" / "report.html").exists()


def test_a_place_that_cannot_be_written_exits_with_2(output: Path, run_cli: RunCli) -> None:
    done = run_cli("report", output, "--to", output / "_SUCCESS" / "report.html")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_page_goes_through_a_pipe_and_has_no_summary_beside_it(
    output: Path, tmp_path: Path
) -> None:
    with reading(tmp_path / "page") as got:
        result = write_report(output, "--to", tmp_path / "page")
    assert (result.exit_code, "summary" in result.stdout) == (0, False)
    assert result.stdout.startswith(f"report       {tmp_path / 'page'}\n")
    assert got[0].startswith(b"<!DOCTYPE html>") and got[0].rstrip().endswith(b"</html>")
    assert (tmp_path / "page").is_fifo()
    assert not (tmp_path / "page.md").exists()


def test_page_is_written_to_where_a_link_points(output: Path, tmp_path: Path) -> None:
    (tmp_path / "latest.html").symlink_to("1.html")
    assert write_report(output, "--to", tmp_path / "latest.html").exit_code == 0
    assert (tmp_path / "latest.html").is_symlink()
    assert (tmp_path / "1.html").read_text().startswith("<!DOCTYPE html>")
