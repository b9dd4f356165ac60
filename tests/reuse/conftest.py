"""Jobs on the input of marks.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rgpt_batch import run_job
from tests.jobs import Scored, fake_config, read_output
from tests.reuse.marks import Run


@pytest.fixture
def run(tiny_tokenizer: Path, tmp_path: Path) -> Run:
    """Run a job with units of five rows, in a folder below tmp_path."""

    def run_one(
        inputs: Path, name: str, *overrides: str, reuse: Path | None = None, **options: Any
    ) -> Scored:
        summary = run_job(
            fake_config(tiny_tokenizer, "units.max_rows=5", *overrides),
            [str(inputs)],
            str(tmp_path / name),
            reuse=None if reuse is None else str(reuse),
            quiet=True,
            **options,
        )
        return Scored(summary=summary, table=read_output(tmp_path / name), folder=tmp_path / name)

    return run_one
