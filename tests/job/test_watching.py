"""`status --watch`: looks until the job ends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RunCli
from tests.e2e.processes import held_after, parts, rgpt_batch, started
from tests.jobs import Score

WritePairs = Callable[..., Path]


def _score(tokenizer: Path, pairs: Path, output: Path) -> list[str | Path]:
    return rgpt_batch(
        *("score", "--model", tokenizer, "-i", pairs, "--output", output, "--executor", "local"),
        *("-o", "engine.method=fake", "-o", "units.max_rows=20"),
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_ends_with_the_job(
    terminal: bool, tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    """Two processes: the job, and who watches it, every two seconds."""
    output = tmp_path / "scored"
    command = _score(tiny_tokenizer, write_pairs(200), output)
    with started(command, tmp_path / "job.log", held_at=held_after(1)) as job:
        job.wait_until_held()
        watching = rgpt_batch("status", output, "--watch")
        with started(watching, tmp_path / "watch.log", terminal=terminal) as watch:
            # The job stands still until it was seen to run.
            if terminal:
                watch.wait_until(lambda: "running" in watch.output)
            job.let_go()
            assert job.wait() == 0
            assert watch.wait() == 0
            assert "complete" in watch.output
            assert "10 of 10 committed" in watch.output


def test_watching_ends_at_ctrl_c_and_the_job_goes_on(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    slow = ("-o", "engine.fake_seconds_per_pair=0.05")
    command = [*_score(tiny_tokenizer, write_pairs(200), output), *slow]
    with started(command, tmp_path / "job.log") as job:
        job.wait_until(lambda: bool(parts(output)))
        watching = rgpt_batch("status", output, "--watch")
        # It may not end meanwhile: who watches would end too.
        job.send(signal.SIGSTOP)
        with started(watching, tmp_path / "watch.log", terminal=True) as watch:
            watch.wait_until(lambda: "committed" in watch.output)
            watch.press_ctrl_c()
            assert watch.wait() == 130
            assert "Traceback" not in watch.output
        assert job.is_running()
        job.send(signal.SIGCONT)
        job.send(signal.SIGTERM)
        assert job.wait() == 143


def test_watching_a_finished_job_shows_it_once(
    score_with_fake: Score, write_pairs: WritePairs, run_cli: RunCli
) -> None:
    scored = score_with_fake(write_pairs(5))
    done = run_cli("status", scored.folder, "--watch")
    assert done.returncode == 0
    assert done.stdout.count("complete") == 1
    both = run_cli("status", scored.folder, "--watch", "--json")
    assert both.returncode == 2 and "exclude each other" in both.stderr
