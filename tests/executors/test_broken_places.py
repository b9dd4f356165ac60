"""Engines that do not start on one node say nothing of the others; GPUs: test_broken_gpus.py.

On the session's cluster, which nodes join. Their GPUs are numbers that Ray hands out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.executors.background import in_background, wait_for_activity, wait_for_outcomes
from tests.executors.cluster import NUM_CPUS, joined_node, node_ids
from tests.executors.workers import Journal, MakeExecutor, Script, ScriptedWorker, make_units

pytestmark = pytest.mark.ray


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
