"""Executors under test: the local one in this process, Ray's on the session's cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.executors import Executor
from rgpt_batch.executors.local import LocalExecutor
from rgpt_batch.executors.process_log import RunLogs
from tests.executors.workers import Journal, MakeExecutor, make_config


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.fixture
def local_executor() -> MakeExecutor:
    return lambda **options: LocalExecutor(make_config(kind="local", **options).executor)


@pytest.fixture
def ray_executor() -> Iterator[MakeExecutor]:
    """Make executors on the shared cluster; afterwards none of their actors may be left."""
    from rgpt_batch.executors.ray_executor import RayExecutor
    from tests.executors.cluster import shared_cluster, wait_until_idle

    shared_cluster()

    def make(*, logs: RunLogs | None = None, **options: Any) -> Executor:
        return RayExecutor(make_config(kind="ray", **{"num_workers": 1, **options}), logs)

    yield make
    wait_until_idle()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> MakeExecutor:
    """Each executor with one worker."""
    make: MakeExecutor = request.getfixturevalue(f"{request.param}_executor")
    return make
