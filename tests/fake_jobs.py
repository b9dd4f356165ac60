from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs import Scored, fake_config, score

Score = Callable[..., Scored]


@pytest.fixture
def score_with_fake(tiny_tokenizer: Path, tmp_path: Path) -> Score:
    """Score input files with the fake engine into a folder below tmp_path."""

    def run(*inputs: str | Path, overrides: tuple[str, ...] = (), name: str = "scored") -> Scored:
        return score(fake_config(tiny_tokenizer, *overrides), inputs, tmp_path / name)

    return run
