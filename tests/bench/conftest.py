"""Benchmarks load engines."""

from __future__ import annotations

from functools import partial

import pytest

from tests.conftest import RunCli


@pytest.fixture
def run_cli(run_cli: RunCli) -> RunCli:
    """Run `rgpt-batch` with torch."""
    return partial(run_cli, without_torch=False)
