"""Jobs on a cluster that scales from zero: a head without CPUs, and a node that comes when asked.

Two Ray clusters and four commands, some 25 s where cores are free.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands.start import WITHOUT_TORCH
from tests.e2e.outputs import read_output, row_differences
from tests.e2e.processes import parts

pytestmark = pytest.mark.ray

RAY = ("--executor", "ray", "-o", "executor.num_workers=8")


@pytest.fixture(scope="module")
def empty_cluster() -> Any:
    """A head without CPUs."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", WITHOUT_TORCH)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        yield cluster
        cluster.shutdown()


def test_a_job_waits_for_the_first_node_of_a_cluster_that_scales_from_zero(
    empty_cluster: Any,
    job: Any,
    start: Any,
    finish: Any,
    clean_rows: Any,
    read_status: Any,
    tmp_path: Path,
) -> None:
    output = tmp_path / "scored"
    command = [*job.score(output, *RAY), "-o", "executor.gpus_per_worker=1"]
    here = {"RAY_ADDRESS": empty_cluster.address}

    # No node comes.
    code, said = finish([*command, "-o", "executor.place_timeout_seconds=1"], environment=here)
    said = " ".join(said.split())
    assert code == 1
    assert "the job asks for 8 workers of 1 GPU and 1 CPU each" in said
    assert "the cluster has no node with GPUs or CPUs yet" in said
    assert "run the same command again" in said
    assert parts(output) == []

    # The next time, a node with one GPU comes.
    process = start(command, environment=here)
    waiting = "waiting for 8 workers of 1 GPU and 1 CPU each; the cluster has no node with GPUs"
    process.wait_until(lambda: waiting in process.output)
    assert waiting in read_status(output)["activity"]
    node = empty_cluster.add_node(num_cpus=1, num_gpus=1)
    assert process.wait() == 0, process.output
    empty_cluster.remove_node(node)
    assert row_differences(clean_rows, read_output(output)) == []


def test_without_a_node_or_options_the_job_does_not_guess(
    empty_cluster: Any, job: Any, finish: Any, tmp_path: Path
) -> None:
    options = ("-o", "engine.method=token-ids")
    command = job.score(tmp_path / "scored", *RAY, *options)
    code, said = finish(command, environment={"RAY_ADDRESS": empty_cluster.address})
    assert code == 2
    assert "nothing tells whether engines run on GPUs" in said and "gpus_per_worker" in said


def test_a_cluster_that_the_job_itself_starts_is_not_waited_for(
    job: Any, finish: Any, tmp_path: Path
) -> None:
    command = [*job.score(tmp_path / "scored", *RAY), "-o", "executor.gpus_per_worker=1"]
    code, said = finish(command)
    assert code == 2, said
    assert "a worker needs 1 GPU and 1 CPU on one node, but the cluster's nodes have" in said
