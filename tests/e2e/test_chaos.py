"""Kills at random moments, and the proof that a worse writer would not pass.

A thousand of them: make test-long. Here it is one job, killed about ten times before it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import Chaos, Findings, chaos_config
from tests.commands.fork_server import run_fork_server

Campaign = Callable[..., Findings]


@pytest.fixture
def campaign(tiny_tokenizer: Path, tmp_path: Path) -> Campaign:
    # Runs are forked from the one that all tests have.
    run_fork_server()

    def run(num_kills: int, **options: Any) -> Findings:
        config = chaos_config(tiny_tokenizer, "local", "fake")
        return Chaos(config, tmp_path, seed=1, **options).run(num_kills)

    return run


def test_kills_lose_double_and_change_no_row_and_show_no_partial_file(campaign: Campaign) -> None:
    findings = campaign(5)
    assert findings.is_clean, findings
    assert findings.kills >= 5
    assert findings.jobs_completed >= 1
    assert findings.files_read > 10
    assert findings.most_units_lost_by_a_kill is not None
    assert findings.most_units_lost_by_a_kill <= 3
    assert findings.rows_scored_again is not None
    assert 0 < findings.rows_scored_again <= 3 * 8 * findings.kills


def test_a_writer_that_streams_to_the_final_name_is_caught(campaign: Campaign) -> None:
    findings = campaign(5, writer="naive")
    assert not findings.is_clean
    assert findings.unreadable_files > 0
