"""Engines that do not start in one place say nothing of the others.

On the session's cluster, which nodes join: some 3 s each where cores are free. Their GPUs are
numbers that Ray hands out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from rgpt_batch.errors import EngineStartError
from tests.executors.background import in_background, wait_for_activity, wait_for_outcomes
from tests.executors.cluster import NUM_CPUS, joined_node, node_ids
from tests.executors.workers import Journal, MakeExecutor, Script, ScriptedWorker, make_units, run

pytestmark = pytest.mark.ray


def test_a_gpu_that_fails_fast_does_not_end_a_job_whose_other_gpu_loads_slowly(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(broken_gpus=frozenset("0"), num_failed_starts_before=3)
    make_worker = partial(ScriptedWorker, tmp_path, script)
    with joined_node(num_cpus=2, num_gpus=2):
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
    with joined_node(num_cpus=2, num_gpus=2):
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


def test_a_worker_without_gpu_keeps_away_from_a_node_where_no_engine_starts(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    (head,) = node_ids()
    make_worker = partial(ScriptedWorker, tmp_path, Script(broken_nodes=frozenset([head])))
    executor = ray_executor(num_workers=2, cpus_per_worker=NUM_CPUS)
    with in_background(executor, make_units(6), make_worker) as outcomes:
        wait_for_activity(
            executor,
            f"waiting for 2 workers of {NUM_CPUS} CPUs each; where the cluster has room, no engine "
            "starts: scripted on a broken place, GPU ",
        )
        with joined_node(num_cpus=NUM_CPUS) as other:
            wait_for_outcomes(executor, outcomes, 6)
            wait_for_activity(executor, "scoring on 1 of 2 workers")
    assert len(outcomes) == 6
    assert journal.units("failed start") == [head] * 3
    assert journal.units("good start") == [other.node_id]


def test_where_no_place_is_good_each_is_tried_and_the_cause_ends_the_job(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    make_worker = partial(ScriptedWorker, tmp_path, Script(broken_gpus=frozenset("01")))
    with joined_node(num_cpus=2, num_gpus=2):
        executor = ray_executor(num_workers=None, gpus_per_worker=1)
        with pytest.raises(EngineStartError, match=r"scripted on a broken place, GPU [01]"):
            run(executor, make_units(6), make_worker)
    starts = [event["gpus"] for event in journal.events("start")]
    assert sorted(starts) == ["0"] * 3 + ["1"] * 3


def test_a_broken_first_node_does_not_end_a_job_that_has_asked_for_more(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    executor = ray_executor(num_workers=2, gpus_per_worker=1)
    with joined_node(num_cpus=1, num_gpus=1) as broken:
        make_worker = partial(
            ScriptedWorker, tmp_path, Script(broken_nodes=frozenset([broken.node_id]))
        )
        with in_background(executor, make_units(6), make_worker) as outcomes:
            wait_for_activity(
                executor,
                "waiting for 2 workers of 1 GPU and 1 CPU each; where the cluster has room, no "
                "engine starts: scripted on a broken place, GPU 0",
            )
            with joined_node(num_cpus=1, num_gpus=1) as good:
                journal.wait_for_workers("good start", 1)
                wait_for_activity(executor, "scoring on 1 of 2 workers")
                wait_for_outcomes(executor, outcomes, 6)
    assert len(outcomes) == 6
    assert journal.units("failed start") == [broken.node_id] * 3
    assert journal.units("good start") == [good.node_id]
