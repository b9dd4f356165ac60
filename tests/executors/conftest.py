"""Executors under test: the local one in this process, Ray's on the session's cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch import run_job
from rgpt_batch.executors import Executor
from rgpt_batch.executors.local import LocalExecutor
from rgpt_batch.executors.process_log import RunLogs
from rgpt_batch.job.plan import plan_job
from rgpt_batch.output import open_store
from tests.executors.mortal import MortalWorker, PlanJob
from tests.executors.workers import Journal, MakeExecutor, make_config
from tests.jobs import fake_config, score


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


@pytest.fixture
def mortal_job(tiny_tokenizer: Path, write_pairs: Callable[..., Path], tmp_path: Path) -> PlanJob:
    """Plan a job of three units of 40 rows; returns its parts, given what the rows hold."""

    def plan(poison: dict[int, str]) -> Any:
        pairs = [(f"query {i % 5}", f"{poison.get(i, 'plain')} document {i}") for i in range(120)]
        path = write_pairs(pairs, row_group_size=40)
        config = fake_config(tiny_tokenizer, "units.max_rows=40", "output.source=true")
        output = str(tmp_path / "scored")
        config, manifest = plan_job(config, [str(path)], output)
        open_store(output).save_manifest(manifest)
        make_worker = partial(
            MortalWorker, tmp_path, config, manifest.columns, manifest.fingerprint, output
        )
        # The fake engine itself minds no document.
        clean = score(config, [path], tmp_path / "clean").rows
        return manifest.units, make_worker, partial(run_job, config, [str(path)], output), clean

    return plan
