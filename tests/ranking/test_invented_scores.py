"""Scores of the fake engine look like any others: whatever ranks or judges them says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RunCli
from tests.jobs import Score, Scored
from tests.report.jobs import write_pairs

WARNING = "the fake engine wrote these scores; they are invented and mean nothing."


@pytest.fixture
def scored(score_with_fake: Score, tmp_path: Path) -> Scored:
    return score_with_fake(write_pairs(tmp_path / "pairs"))


def test_rank_evaluate_and_compare_warn(scored: Scored, tmp_path: Path, run_cli: RunCli) -> None:
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("q0 0 d0 1\nq1 0 d1 1\n")
    commands = (
        ("rank", scored.folder, "--output", tmp_path / "run.trec"),
        ("evaluate", scored.folder, "--qrels", qrels),
        ("evaluate", tmp_path / "run.trec", "--qrels", qrels, "--baseline", scored.folder),
        ("compare", scored.folder, scored.folder),
    )
    for command in commands:
        done = run_cli(*command)
        assert done.returncode == 0, done.stderr
        assert f"{scored.folder}: {WARNING}" in done.stderr
        assert WARNING not in done.stdout


def test_scores_of_a_model_and_runs_of_others_give_no_warning(
    scored: Scored, tmp_path: Path, run_cli: RunCli
) -> None:
    qrels, run = tmp_path / "qrels.tsv", tmp_path / "run.trec"
    qrels.write_text("q0 0 d0 1\n")
    run.write_text("q0 Q0 d0 1 2.5 tag\n")
    assert WARNING not in run_cli("evaluate", run, "--qrels", qrels).stderr
    # A first stage's scores in Parquet, without a footer of ours.
    pairs = tmp_path / "pairs"
    done = run_cli("rank", pairs, "--score-column", "bm25", "--output", tmp_path / "bm25.trec")
    assert (done.returncode, done.stderr) == (0, "")
