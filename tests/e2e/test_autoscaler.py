"""A job and Ray's autoscaler: a cluster of three nodes that start one after the other.

The last of them goes when it has been idle for a while. Costs 120 s.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.autoscaling import RAY, autoscaling_cluster
from tests.e2e.jobs import Job, Start
from tests.e2e.outputs import read_output, row_differences

pytestmark = [pytest.mark.ray, pytest.mark.long]


def test_an_autoscaler_brings_a_machine_for_each_worker_and_takes_them_away_afterwards(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    options = ("executor.max_workers=2", "executor.gpus_per_worker=1")
    command = job.score(output, "--executor", "ray", *(w for o in options for w in ("-o", o)))
    with autoscaling_cluster(tmp_path, max_gpu_nodes=3) as environment:

        def num_nodes() -> int:
            asked = start([RAY, "status"], environment=environment)
            assert asked.wait() == 0, asked.output
            return sum(map(int, re.findall(r"^ *(\d+) gpu$", asked.output, re.MULTILINE)))

        # Until both workers are at work, a job of 20 s is not done.
        process = start(
            [*command, "-o", "engine.fake_seconds_per_pair=0.4"],
            environment=environment,
        )
        waiting = "waiting for 2 workers of 1 GPU and 1 CPU each; the cluster has no node"
        process.wait_until(lambda: waiting in process.output)
        process.wait_until(lambda: "scoring on 1 of 2 workers" in process.output)
        process.wait_until(lambda: "scoring on 2 workers" in process.output)
        assert num_nodes() == 2
        assert process.wait() == 0, process.output
        process.wait_until(lambda: num_nodes() == 0)
    assert row_differences(clean_rows, read_output(output)) == []
