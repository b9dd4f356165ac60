"""The terminal belongs to the command: what engines print is in a log of the output folder.

Each test costs one to three runs of the command with the local executor, some 3 s each.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.jobs import Finish, Job
from tests.e2e.outputs import read_output
from tests.e2e.processes import rgpt_batch

NOISY = {"PYTHONPATH": str(Path(__file__).parent / "noisy")}
BROKEN_VLLM = {"PYTHONPATH": str(Path(__file__).parent / "broken_vllm")}


def logs(output: Path) -> list[Path]:
    return sorted((output / "_rgpt" / "logs").glob("*"))


@pytest.mark.parametrize("terminal", [True, False])
def test_what_an_engine_prints_is_in_the_log_and_not_on_the_terminal(
    job: Job, finish: Finish, tmp_path: Path, terminal: bool
) -> None:
    output = tmp_path / "scored"
    command = job.score(output, "-o", "engine.fake_seconds_per_pair=0.001")
    code, said = finish(command, environment=NOISY, terminal=terminal, without_torch=False)
    assert code == 0, said
    assert "NOISE" not in said
    assert "96, of which 96 in this run" in said
    if terminal:
        # The bar: drawn over and over on one line, which nothing has cut.
        drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
        assert re.search(r"done .*100%.* pairs/s", drawn)
    (log,) = logs(output)
    assert re.fullmatch(r"run-000001-\w{8}-local-\d+\.log", log.name)
    text = log.read_text()
    for what in ("to descriptor 1", "to descriptor 2", "from print", "from a warning", "a child"):
        assert f"NOISE {'of ' if what == 'a child' else ''}{what}" in text
    assert "pairs/s" not in text


def test_logs_are_no_part_of_what_a_job_has_written(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    code, said = finish(job.score(output), environment=NOISY, without_torch=False)
    assert code == 0, said
    assert logs(output)
    code, said = finish(job.score(output))
    assert code == 0, said
    assert "96, of which 0 in this run" in said
    code, said = finish(rgpt_batch("verify", output))
    assert code == 0, said
    assert "all is well" in said
    assert read_output(output).num_rows == 96


@pytest.mark.parametrize("terminal", [True, False])
def test_a_start_that_fails_shows_the_end_of_the_log(
    job: Job, finish: Finish, tmp_path: Path, terminal: bool
) -> None:
    output = tmp_path / "scored"
    command = job.score(output, "-o", "engine.method=prompt-logprobs")
    code, said = finish(command, environment=BROKEN_VLLM, terminal=terminal, without_torch=False)
    assert code == 1, said
    (log,) = logs(output)
    said = said.replace("\r\n", "\n")
    assert "Engine core initialization failed" in said
    assert f"see the log {log} (host " in said
    assert (
        "\n  | NOISE: asked https://***@host/ for devices\n  | NOISE: no device was found" in said
    )
    assert said.count("NOISE") == 2
    assert "canary-7f3a" not in said
    assert "run the same command again" in said


def test_a_run_in_which_nothing_was_printed_leaves_no_log(clean_output: Path) -> None:
    assert not (clean_output / "_rgpt" / "logs").exists()


@pytest.mark.parametrize("terminal", [True, False])
def test_try_shows_scores_alone(job: Job, finish: Finish, tmp_path: Path, terminal: bool) -> None:
    options: list[str | Path] = ["-c", job.config, "-o", "engine.fake_seconds_per_pair=0.001"]
    command = rgpt_batch("try", "what is it", "It is a number.", *options)
    environment = {**NOISY, "TMPDIR": str(tmp_path)}
    code, said = finish(command, environment=environment, terminal=terminal, without_torch=False)
    assert code == 0, said
    assert "It is a number." in said
    assert "NOISE" not in said
    assert not list(tmp_path.glob("rgpt-batch-*"))


def test_try_shows_the_end_of_the_log_where_the_engine_does_not_start(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    options: list[str | Path] = ["-c", job.config, "-o", "engine.method=prompt-logprobs"]
    command = rgpt_batch("try", "what is it", "It is a number.", *options)
    environment = {**BROKEN_VLLM, "TMPDIR": str(tmp_path)}
    code, said = finish(command, environment=environment, without_torch=False)
    assert code == 1, said
    (log,) = tmp_path.glob("rgpt-batch-*/_rgpt/logs/*.log")
    assert f"see the log {log}" in said
    assert "\n  | NOISE: no device was found\n" in said
