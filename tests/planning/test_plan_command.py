"""`plan`: a command of `score` with one word changed, and what it says of the job's units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch.commands.planning import plan
from rgpt_batch.commands.scoring import score
from rgpt_batch.errors import ConfigError, ManifestMismatch
from tests.jobs import read_output

WritePairs = Callable[..., Path]
Run = Callable[..., dict[str, str]]


@pytest.fixture
def run(tiny_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `score` or `plan` with the fake engine; returns the lines of facts, notes joined."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def run_one(command: Any, *arguments: str | Path, name: str = "scored") -> dict[str, str]:
        words = [
            *("--model", tiny_tokenizer, "-o", "engine.method=fake", "--executor", "local"),
            *("--output", tmp_path / name, "--quiet", *arguments),
        ]
        result = CliRunner().invoke(command, list(map(str, words)))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        assert list(temporary.glob("rgpt-batch-*")) == []
        facts: dict[str, str] = {}
        for line in result.output.splitlines():
            facts[line[:12].strip()] = facts.get(line[:12].strip(), "") + line[13:]
        return facts

    return run_one


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str | Path, ...]:
    """Options that name candidates of ids alone, and the tables of their texts."""
    columns = {
        "candidates": {"qid": ["q1", "q1", "q2"], "docno": ["a", "b", "a"]},
        "queries": {"qid": ["q1", "q2"], "text": ["one", "two"]},
        "documents": {"docno": ["a", "b"], "text": ["A text.", "B text."]},
    }
    for name, table in columns.items():
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")
    return (
        *("-i", tmp_path / "candidates.parquet", "--queries", tmp_path / "queries.parquet"),
        *("--documents", tmp_path / "documents.parquet"),
    )


def test_plan_takes_every_option_of_score() -> None:
    options = {option for parameter in score.params for option in parameter.opts}
    assert options <= {option for parameter in plan.params for option in parameter.opts}


def test_plan_of_ids_and_tables_writes_nothing_and_finds_what_score_then_does(
    run: Run, tables: tuple[str | Path, ...], tmp_path: Path
) -> None:
    options = (*tables, "-o", "units.max_rows=2", "--max-rejected-fraction", "0.5")
    ahead = run(plan, *options)
    assert not (tmp_path / "scored").exists()
    assert ahead["input"] == "1 shard, 3 rows"
    assert ahead["units"] == "2, of which 0 are committed already; largest 2 rows"
    assert ahead["rejected"] == "0.00% of the sampled rows"
    run(score, *options)
    assert len(list((tmp_path / "scored").glob("part-*.parquet"))) == 2
    after = run(plan, *options)
    assert after["units"] == "2, of which 2 are committed already; largest 2 rows"
    assert after["fingerprint"] == ahead["fingerprint"]


def test_plan_checks_and_counts_the_scores_that_are_to_be_reused(
    run: Run, write_pairs: WritePairs, tmp_path: Path
) -> None:
    old, new = write_pairs(4, "old.parquet"), write_pairs(6, "new.parquet")
    run(score, "-i", old, name="old")
    found = run(plan, "-i", new, "--reuse", tmp_path / "old")
    assert found["reuse"].startswith(f"4 rows of {tmp_path}/old, as far as texts are the same")
    with pytest.raises(ManifestMismatch, match="its scores cannot be reused"):
        run(plan, "-i", new, "--reuse", tmp_path / "old", "--max-length", "30")
    with pytest.raises(ConfigError, match="need an output folder on a file system"):
        run(plan, "-i", new, "--reuse", tmp_path / "old", "--output", "s3://bucket/scored")


def test_plan_says_what_score_would_do_to_another_job(
    run: Run, write_pairs: WritePairs, tmp_path: Path
) -> None:
    first, second = write_pairs(4, "1.parquet"), write_pairs(5, "2.parquet")
    run(score, "-i", first)
    said = f"{tmp_path}/scored holds another job; score "
    assert run(plan, "-i", second)["note"] == f"{said}would ask for --on-change"
    overwritten = run(plan, "-i", second, "--on-change", "overwrite")
    assert overwritten["note"] == f"{said}deletes that"
    assert read_output(tmp_path / "scored").num_rows == 4


def test_plan_notes_units_that_would_be_many_tiny_files(run: Run, write_pairs: WritePairs) -> None:
    pairs = write_pairs(300)
    noted = run(plan, "-i", pairs, "-o", "units.max_rows=6")
    assert noted["units"].startswith("50, ")
    assert noted["note"].startswith(
        "50 files of at most 6 rows are many and tiny. Raise units.max_rows; 30 to 120 seconds"
    )
    assert "note" not in run(plan, "-i", pairs, "-o", "units.max_rows=7")
    # Many, but each holds a good deal of work: the limit on bytes makes them small.
    assert "note" not in run(plan, "-i", pairs, "-o", "units.max_bytes=100")
