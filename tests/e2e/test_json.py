"""--json: one object on standard output with the keys of docs/json.md, all else on standard error.

The job has the fake engine, which sleeps, and each sleep makes noise.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.commands.text import print_json
from tests.commands import start as commands
from tests.conftest import ROOT
from tests.e2e.jobs import Job
from tests.e2e.processes import rgpt_batch
from tests.e2e.test_terminal import NOISY
from tests.importing.files import write_beir

TABLE = (ROOT / "docs" / "json.md").read_text().splitlines()


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = commands.run(rgpt_batch(*arguments), environment=NOISY)
    assert done.returncode == code, done.stderr
    return done


def answer(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    done = run(*arguments, "--json", code=code)
    assert done.stdout.count("\n") == 1
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def documented(start: str) -> set[str]:
    (line,) = (line for line in TABLE if line.startswith(f"| {start}"))
    keys = set(re.findall(r"`(\w+)`", line.split(" | ")[1]))
    assert keys
    return keys


def test_score_verify_status_rank_and_plan_answer_with_the_documented_keys(
    job: Job, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    job_options = ("-c", job.config, "-i", job.pairs, "--output", output)
    plan = ("plan", *job_options, "--pairs-per-second", "8", "--workers", "2")
    ahead = answer(*plan, "--price-per-hour", "3")
    assert ahead.keys() == documented("`plan`")
    assert ahead["sample"].keys() == documented("… `sample`")
    assert ahead["effort"].keys() == documented("… `effort`")
    assert (ahead["num_rows"], ahead["num_units"], ahead["num_units_committed"]) == (96, 24, 0)
    assert (ahead["effort"]["seconds"], ahead["effort"]["cost"]) == (6.0, 0.01)

    noise = ("-o", "engine.fake_seconds_per_pair=0.0001")
    scored = answer("score", *job_options, *noise)
    assert scored.keys() == documented("`score`")
    assert (scored["num_rows_scored"], scored["exit_code"]) == (96, 0)
    assert scored["num_rejected"] == {"NULL_QUERY": 3}
    assert (scored["parity"], scored["failures"], scored["problems"]) == (None, [], [])

    status = answer("status", output)
    assert status["complete"]
    assert status.keys() <= documented("`status`")

    verified = answer("verify", output)
    assert verified.keys() == documented("`verify`")
    assert (verified["num_rows"], verified["problems"], verified["exit_code"]) == (96, [], 0)

    ranked = answer("rank", output, "--output", tmp_path / "run.trec")
    assert ranked.keys() == documented("`rank`")
    assert (ranked["num_ranked"], ranked["num_rejected"]) == (96, 3)


def test_a_damaged_output_is_a_problem_in_the_answer_and_in_the_exit_code(
    clean_output: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    subprocess.run(["cp", "-r", clean_output, output], check=True)
    next(output.glob("part-*.parquet")).unlink()
    verified = answer("verify", output, code=3)
    assert verified["exit_code"] == 3
    assert verified["problems"]


def test_import_answers_with_the_documented_keys(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    found = answer("import", "beir", folder, "--output", tmp_path / "pairs")
    assert found.keys() == documented("`import …`")
    assert found["missing_queries"].keys() == documented("… `missing_queries`")
    assert found["missing_queries"]["num_ids"] == 0
    assert set(found["sources"]) == {"candidates", "queries", "documents"}
    for source in found["sources"].values():
        assert source.keys() == documented("… each of `sources`") - set(found["sources"])
    assert found["sources"]["queries"]["columns"]["query"] == "text"


def test_an_error_leaves_standard_output_empty(tmp_path: Path) -> None:
    done = run("verify", tmp_path, "--json", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("rgpt-batch: ")


def test_a_number_that_does_not_exist_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (float("-inf"),)}})
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": None, "b": [None, 1.5], "c": {"d": [None]}}
