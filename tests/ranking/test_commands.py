from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rgpt_batch.commands.evaluation import compare, evaluate
from rgpt_batch.commands.ranking import rank
from tests.ranking.files import Row, write_lines, write_scored
from tests.storage.test_written_files import reading

ROOT = Path(__file__).parent.parent.parent


def run(command: click.Command, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def succeed(command: click.Command, *arguments: str | Path) -> str:
    result = run(command, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    rows: list[Row] = [("q1", "a", -1.0), ("q1", "b", -2.0), ("q1", "c", None), ("q2", "a", -3.0)]
    return write_scored(tmp_path / "scored.parquet", rows, {"bm25": [1.0, 3.0, 2.0, 5.0]})


@pytest.fixture
def qrels(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "qrels.tsv", "q1 0 b 1", "q2 0 a 1")


def test_demo_from_pairs_to_a_run_and_its_quality(tmp_path: Path) -> None:
    ranked = succeed(
        rank,
        ROOT / "demo" / "pairs",
        *("--score-column", "bm25_score", "--output", tmp_path / "bm25.trec", "--tag", "bm25"),
    )
    assert ranked.splitlines()[1:] == [
        "ranked       270 of 270 pairs, 24 queries",
        "rejected     0 pairs",
    ]
    evaluated = succeed(evaluate, tmp_path / "bm25.trec", "--qrels", ROOT / "demo" / "qrels.tsv")
    lines = [line.split() for line in evaluated.splitlines()]
    assert ["queries", "24", "judged,", "0", "of", "them", "without", "results"] in lines
    assert next(line for line in lines if line[:1] == ["nDCG@10"])[1] == "0.6484"


def test_format_follows_the_name_of_the_output_unless_given(scored: Path, tmp_path: Path) -> None:
    succeed(rank, scored, "--output", tmp_path / "run.parquet")
    assert (tmp_path / "run.parquet").read_bytes().startswith(b"PAR1")
    succeed(rank, scored, "--output", tmp_path / "run.txt")
    assert (tmp_path / "run.txt").read_text().startswith("q1 Q0 a 1 -1 rgpt\n")
    succeed(rank, scored, "--output", tmp_path / "run.txt", "--format", "parquet")
    assert (tmp_path / "run.txt").read_bytes().startswith(b"PAR1")


def test_rejected_pairs_are_dropped_on_request(scored: Path, tmp_path: Path) -> None:
    output = succeed(rank, scored, "--output", tmp_path / "run", "--rejected", "drop")
    assert "ranked       3 of 4 pairs, 2 queries\nrejected     1 pairs, left out\n" in output
    output = succeed(rank, scored, "--output", tmp_path / "run", "--top-k", "1")
    assert "ranked       2 of 4 pairs, 2 queries\nrejected     1 pairs, ranked last\n" in output


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        # Scores -1 and -2 become 1 and -1, BM25's 1, 3 and 2 become -1.2247, 1.2247 and 0.
        (
            ["--interpolate", "0.25"],
            ["q1 Q0 b 1 0.668558", "q1 Q0 a 2 -0.668558"],
        ),
        # Scores become 1 and 0, BM25's 0 and 1.
        (
            ["--interpolate", "0.25", "--normalize", "minmax"],
            ["q1 Q0 b 1 0.75 rgpt-interpolate-0.25-minmax", "q1 Q0 a 2 0.25 "],
        ),
        # 0.25 · -2 + 0.75 · 3 and 0.25 · -1 + 0.75 · 1
        (
            ["--interpolate", "0.25", "--normalize", "none"],
            ["q1 Q0 b 1 1.75 rgpt-interpolate-0.25-none", "q1 Q0 a 2 0.5 "],
        ),
        (
            ["--interpolate", "1", "--normalize", "zscore"],
            ["q1 Q0 a 1 1 rgpt-interpolate-1-zscore", "q1 Q0 b 2 -1 "],
        ),
        (
            ["--interpolate", "0", "--normalize", "minmax", "--tag", "mine"],
            ["q1 Q0 b 1 1 mine", "q1 Q0 a 2 0 mine"],
        ),
        # 1 / 62 + 1 / 61 and 1 / 61 + 1 / 63
        (["--rrf"], ["q1 Q0 b 1 0.0325224", "q1 Q0 a 2 0.0322664"]),
    ],
)
def test_rank_interpolates_or_fuses_with_a_first_stage_and_its_tag_says_how(
    scored: Path, tmp_path: Path, options: list[str], lines: list[str]
) -> None:
    column = ("--first-stage-column", "bm25")
    output = succeed(rank, scored, "--output", tmp_path / "run", *column, *options)
    assert "first stage  lacks 0 pairs" in output
    written = (tmp_path / "run").read_text().splitlines()
    for line, expected in zip(written[:2], lines, strict=True):
        assert line.startswith(expected)
    if options == ["--interpolate", "0.25"]:
        assert written[0].endswith(" rgpt-interpolate-0.25-zscore")
    if options == ["--rrf"]:
        assert written[0].endswith(" rgpt-rrf")
    succeed(rank, scored, "--output", tmp_path / "run.parquet", *column, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rrf"], "needs --first-stage or"),
        (["--interpolate", "0.5", "--rrf", "--first-stage-column", "bm25"], "exclude each other"),
        (["--first-stage-column", "bm25"], "needs --interpolate or --rrf"),
        (
            ["--normalize", "zscore", "--rrf", "--first-stage-column", "bm25"],
            "is for --interpolate",
        ),
        (["--interpolate", "1.5"], "range"),
        (["--top-k", "0"], "range"),
    ],
)
def test_options_that_do_not_fit_together_are_usage_errors(
    scored: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = run(rank, scored, "--output", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_evaluate_prints_one_line_per_metric_and_writes_the_table(
    scored: Path, qrels: Path, tmp_path: Path
) -> None:
    succeed(rank, scored, "--output", tmp_path / "bm25.trec", "--score-column", "bm25")
    arguments: list[str | Path] = [scored, "--qrels", qrels, "--baseline", tmp_path / "bm25.trec"]
    arguments += ["--metrics", "RR@10,P@1", "--per-query", tmp_path / "table.tsv"]
    lines = succeed(evaluate, *arguments).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("metric"))
    assert lines[head + 1].split()[:2] == ["RR@10", "0.7500"]
    assert "-0.2500" in lines[head + 1]
    assert len({len(line) for line in lines[head : head + 3]}) == 1
    assert len((tmp_path / "table.tsv").read_text().splitlines()) == 3
    found = json.loads(succeed(evaluate, *arguments, "--json"))
    assert found["num_queries"] == 2
    assert found["metrics"][0]["metric"] == "RR@10"
    assert found["metrics"][0]["difference"]["mean"] == -0.25
    assert set(found["metrics"][0]["run"]) == {"mean", "low", "high"}


def test_compare_prints_facts_or_one_json_object(scored: Path, qrels: Path, tmp_path: Path) -> None:
    other = write_scored(tmp_path / "b.parquet", [("q1", "a", -2.5), ("q1", "b", -2.0)])
    output = succeed(compare, scored, other, "--qrels", qrels)
    assert "pairs        2 in both, 2 only in A, 0 only in B" in output
    assert "order        1 of 1 document pairs flipped (100.000%), 1 queries" in output
    assert "nDCG@10" in output
    found = json.loads(succeed(compare, scored, other, "--json"))
    assert found["rankings"]["mean_kendall_tau"] == -1
    assert found["scores"]["max_absolute"] == 1.5
    assert found["quality"] is None


def test_compare_prints_a_before_b_and_names_no_pair_where_nothing_differs(
    scored: Path, qrels: Path, tmp_path: Path
) -> None:
    other = write_scored(tmp_path / "b.parquet", [("q1", "a", -2.5), ("q1", "b", -2.0)])
    lines = succeed(compare, scored, other, "--qrels", qrels).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("metric"))
    assert re.split(r" {2,}", lines[head])[1::2] == ["A", "B", "B - A", "p"]
    # A has b at rank 2 of q1 and a at rank 1 of q2; B has b first and lacks q2.
    assert re.findall(r"  (-?\+?\d\.\d+)  ", lines[head + 1])[:3] == ["0.8155", "0.5000", "-0.3155"]
    same = succeed(compare, scored, scored)
    assert "max 0.000000\n" in same
    assert "max 0.500000 (q1, a)" not in same
    assert "max 1.500000 (q1, a)\n" in succeed(compare, scored, other)


def test_evaluate_warns_of_ties_across_a_cut_of_the_run_and_of_the_baseline(
    qrels: Path, tmp_path: Path
) -> None:
    tied = [(q, d, -1.0) for q in ("q1", "q2") for d in "abc"]
    run_file = write_scored(tmp_path / "tied.parquet", tied)
    other = write_scored(tmp_path / "other.parquet", [*tied[:3], ("q2", "a", -1.0)])
    arguments = (run_file, "--qrels", qrels, "--baseline", other, "--metrics", "P@1,P@2,P@9")
    result = run(evaluate, *arguments, "--json")
    assert result.stderr.splitlines() == [
        "note         run: queries with equal scores on both sides of a metric's cut: 2 at 1, 2 at "
        "2. There doc_id decides, descending, as in trec_eval",
        "note         baseline: queries with equal scores on both sides of a metric's cut: 1 at 1, "
        "1 at 2. There doc_id decides, descending, as in trec_eval",
    ]
    assert json.loads(result.stdout)["num_tied_queries"] == {"1": 2, "2": 2, "9": 0}
    assert "note" not in run(evaluate, run_file, "--qrels", qrels, "--metrics", "AP").output


def test_evaluate_takes_pairs_with_a_first_stage_score_as_the_baseline(
    scored: Path, qrels: Path
) -> None:
    arguments = (scored, "--qrels", qrels, "--baseline", scored, "--metrics", "RR@10")
    column = ("--baseline-score-column", "bm25")
    found = json.loads(succeed(evaluate, *arguments, *column, "--json"))["metrics"][0]
    assert (found["run"]["mean"], found["baseline"]["mean"]) == (0.75, 1.0)
    result = run(evaluate, scored, "--qrels", qrels, *column)
    assert result.exit_code == 2
    assert "--baseline-score-column needs --baseline" in result.output


@pytest.mark.parametrize("command", [rank, evaluate, compare])
def test_help_ends_with_an_example(command: click.Command) -> None:
    assert f"Example: rgpt-batch {command.name} " in succeed(command, "--help")


@pytest.mark.parametrize("run_format", ["trec", "parquet"])
def test_ranking_goes_through_a_pipe(scored: Path, tmp_path: Path, run_format: str) -> None:
    succeed(rank, scored, "--output", tmp_path / "run", "--format", run_format)
    with reading(tmp_path / "pipe") as got:
        succeed(rank, scored, "--output", tmp_path / "pipe", "--format", run_format)
    assert got == [(tmp_path / "run").read_bytes()]
    assert (tmp_path / "pipe").is_fifo()


def test_ranking_and_values_are_written_to_where_a_link_points(
    scored: Path, qrels: Path, tmp_path: Path
) -> None:
    (tmp_path / "latest.trec").symlink_to("1.trec")
    succeed(rank, scored, "--output", tmp_path / "latest.trec")
    assert (tmp_path / "latest.trec").is_symlink()
    assert (tmp_path / "1.trec").read_text().startswith("q1 Q0 a 1")
    (tmp_path / "latest.tsv").symlink_to("1.tsv")
    succeed(evaluate, scored, "--qrels", qrels, "--per-query", tmp_path / "latest.tsv")
    assert (tmp_path / "1.tsv").read_text().startswith("query_id\t")
    assert (tmp_path / "latest.tsv").is_symlink()


def test_values_go_through_a_pipe(scored: Path, qrels: Path, tmp_path: Path) -> None:
    with reading(tmp_path / "pipe") as got:
        succeed(evaluate, scored, "--qrels", qrels, "--per-query", tmp_path / "pipe")
    assert got[0].startswith(b"query_id\t")
    assert (tmp_path / "pipe").is_fifo()
