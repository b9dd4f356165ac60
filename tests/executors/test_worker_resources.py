"""What a worker gets, for clusters that have all nodes, some, or none yet."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rgpt_batch.errors import ConfigError
from rgpt_batch.executors.resources import plan_workers
from tests.executors.workers import make_config

CPU_HEAD = {"CPU": 8.0, "memory": 1e9}
EMPTY_HEAD = {"memory": 1e9}
GPU_NODE = {"CPU": 32.0, "GPU": 8.0}


def planned(
    nodes: Any,
    *,
    num_units: Any = 100,
    can_grow: Any = True,
    method: Any = "auto",
    **options: Any,
) -> Any:
    config = make_config(method, **options)
    plan = plan_workers(config, nodes, num_units, can_grow=can_grow)
    return plan.num_workers, plan.gpus, plan.cpus


@pytest.mark.parametrize("nodes", [[], [EMPTY_HEAD], [CPU_HEAD], [CPU_HEAD, GPU_NODE]])
def test_what_the_configuration_says_decides_whatever_the_cluster_has_at_first(nodes: Any) -> None:
    assert planned(nodes, num_workers=64, gpus_per_worker=1) == (64, 1, 1)
    assert planned(nodes, max_workers=64, gpus_per_worker=1) == (64, 1, 1)
    assert planned(nodes, num_workers=2, gpus_per_worker=0, cpus_per_worker=4) == (2, 0, 4)
    assert planned(nodes, num_workers=2, tensor_parallel_size=4) == (2, 4, 1)
    assert planned(nodes, num_workers=2, pipeline_parallel_size=4) == (2, 4, 1)


@pytest.mark.parametrize(("tensor", "pipeline"), [(4, 1), (1, 4), (2, 2)])
def test_gpus_that_share_an_engine_are_of_one_worker(tensor: int, pipeline: int) -> None:
    config = make_config(
        "auto", num_workers=3, tensor_parallel_size=tensor, pipeline_parallel_size=pipeline
    )
    assert plan_workers(config, [GPU_NODE], 9, can_grow=True).gpus == 4
    config = config.with_options({"executor.gpus_per_worker": 2})
    with pytest.raises(ConfigError, match=r"lets 4 GPUs share one engine\. Set .*_worker=4"):
        plan_workers(config, [GPU_NODE], 9, can_grow=True)


def test_what_it_leaves_open_the_cluster_decides() -> None:
    assert planned([CPU_HEAD, GPU_NODE, GPU_NODE]) == (16, 1, 1)
    assert planned([CPU_HEAD, GPU_NODE], gpus_per_worker=0.25) == (32, 0.25, 1)
    assert planned([CPU_HEAD, GPU_NODE], min_workers=12) == (12, 1, 1)
    assert planned([CPU_HEAD], can_grow=False) == (1, 0, 8)
    assert planned([CPU_HEAD], can_grow=False, max_workers=2) == (2, 0, 4)
    assert planned([GPU_NODE], method="fake") == (1, 0, 1)


def test_there_are_no_more_workers_than_units() -> None:
    assert planned([GPU_NODE], num_units=3) == (3, 1, 1)
    assert planned([EMPTY_HEAD], num_units=3, num_workers=64, gpus_per_worker=1) == (3, 1, 1)


def test_without_nodes_or_options_nobody_guesses() -> None:
    # CPUs that happen to come first say nothing of the GPUs that may follow.
    for nodes in ([], [EMPTY_HEAD], [CPU_HEAD]):
        with pytest.raises(ConfigError, match=r"the cluster has no GPUs, .*gpus_per_worker: 1 for"):
            planned(nodes, num_workers=8)
    with pytest.raises(ConfigError, match=r"no CPUs yet.*executor\.cpus_per_worker"):
        planned([EMPTY_HEAD], num_workers=8, gpus_per_worker=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_worker": 1}, "needs 1 GPU and 1 CPU on one node, .* have 0 GPUs and 8 CPUs"),
        ({"cpus_per_worker": 9}, "needs 9 CPUs on one node"),
        ({"tensor_parallel_size": 2}, "needs 2 GPUs and 1 CPU on one node"),
        ({"pipeline_parallel_size": 2}, r"needs 2 GPUs .*engine\.pipeline_parallel_size"),
    ],
)
def test_where_no_node_can_join_a_worker_that_fits_nowhere_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        planned([CPU_HEAD], can_grow=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 2, "max_workers": 4}, "num_workers is min_workers and max_workers in one"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers is 3, above max_workers, which is 2"),
    ],
)
def test_numbers_of_workers_that_contradict_each_other_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(**options)
