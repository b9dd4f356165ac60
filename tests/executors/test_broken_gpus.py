"""Engines that do not start on one GPU say nothing of the others.

One node joins the session's cluster for all. Its GPUs are numbers that Ray hands out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from rgpt_batch.errors import EngineStartError
from tests.executors.background import in_background, wait_for_activity, wait_for_outcomes
from tests.executors.cluster import joined_node
from tests.executors.workers import Journal, MakeExecutor, Script, ScriptedWorker, make_units, run

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def two_gpus() -> Iterator[None]:
    with joined_node(num_cpus=2, num_gpus=2):
        yield


def test_a_gpu_that_fails_fast_does_not_end_a_job_whose_other_gpu_loads_slowly(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(broken_gpus=frozenset("0"), num_failed_starts_before=3)
    make_worker = partial(ScriptedWorker, tmp_path, script)
    executor = ray_executor(num_workers=2, gpus_per_worker=1)
    done, failures = run(executor, make_units(6), make_worker)
    assert len(done) == 6 and not failures
    starts = [event["gpus"] for event in journal.events("start")]
    assert sorted(starts) == ["0", "0", "0", "1"]


def test_a_single_worker_leaves_a_broken_gpu_for_a_good_one(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    @ray.remote(num_cpus=0, num_gpus=1)
    class Blocker:
        def gpu(self) -> Any:
            return ray.get_runtime_context().get_accelerator_ids()["GPU"][0]

    make_worker = partial(ScriptedWorker, tmp_path, Script(broken_gpus=frozenset("0")))
    executor = ray_executor(num_workers=1, gpus_per_worker=1)
    blockers = [Blocker.remote() for _ in range(2)]  # type: ignore[attr-defined]
    blocker_of = {ray.get(blocker.gpu.remote()): blocker for blocker in blockers}
    ray.kill(blocker_of["0"])
    with in_background(executor, make_units(6), make_worker) as outcomes:
        journal.wait_for_workers("failed start", 3)
        wait_for_activity(executor, "waiting until Ray has 1 GPU and 1 CPU free for a worker")
        ray.kill(blocker_of["1"])
        wait_for_outcomes(executor, outcomes, 6)
    assert len(outcomes) == 6
    assert [event["gpus"] for event in journal.events("start")] == ["0", "0", "0", "1"]


def test_where_no_place_is_good_each_is_tried_and_the_cause_ends_the_job(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    make_worker = partial(ScriptedWorker, tmp_path, Script(broken_gpus=frozenset("01")))
    executor = ray_executor(num_workers=None, gpus_per_worker=1)
    with pytest.raises(EngineStartError, match=r"scripted on a broken place, GPU [01]"):
        run(executor, make_units(6), make_worker)
    starts = [event["gpus"] for event in journal.events("start")]
    assert sorted(starts) == ["0"] * 3 + ["1"] * 3
