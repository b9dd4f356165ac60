"""jobs/submit.py and `ray job stop` against a cluster that `ray start` has started."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.e2e.jobs import Finish, Job, ReadStatus, Start
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import DEADLINE_SECONDS, parts
from tests.servers.ports import free_port

pytestmark = pytest.mark.ray

RAY = Path(sys.executable).parent / "ray"


@pytest.fixture
def cluster(start: Start) -> Iterator[dict[str, str]]:
    """Start a head node of this test's own; returns the environment in which to talk to it."""
    dashboard_port = free_port()
    credentials = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    # Sockets below it may have names of 107 characters, too few for pytest's folders.
    with tempfile.TemporaryDirectory(prefix="rgpt", ignore_cleanup_errors=True) as folder:
        head = start(
            [
                *(RAY, "start", "--head", "--block", "--disable-usage-stats"),
                *("--num-cpus=2", f"--temp-dir={folder}", f"--port={free_port()}"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"),
                f"--ray-client-server-port={free_port()}",
                # Jobs go to the node's agent. Its default port is taken where another cluster runs.
                f"--dashboard-agent-listen-port={free_port()}",
            ],
            # Jobs find their programs where the node does.
            environment={
                **credentials,
                "RAY_ADDRESS": "",
                "PATH": f"{RAY.parent}:{os.environ['PATH']}",
            },
        )
        head.wait_until(lambda: "Ray runtime started" in head.output)
        environment = {**credentials, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard_port}"}
        wait_until_it_takes_jobs(start, environment)
        yield environment
        # Not `ray stop`, which would stop every cluster of this machine.
        head.clean_up()


def wait_until_it_takes_jobs(start: Start, environment: dict[str, str]) -> None:
    """Submit an empty job until it succeeds: the node's agent comes later than the rest."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        process = start([RAY, "job", "submit", "--", "true"], environment=environment)
        if process.wait() == 0:
            return
        assert "No available agent" in process.output, process.output
        assert time.monotonic() < deadline, process.output


def test_a_submitted_job_that_was_stopped_completes_when_submitted_again(
    cluster: dict[str, str],
    job: Job,
    start: Start,
    finish: Finish,
    clean_rows: pa.Table,
    tmp_path: Path,
    read_status: ReadStatus,
) -> None:
    output = tmp_path / "scored"
    options = job.score(output, "--executor", "ray", "-o", "executor.num_workers=2")[4:]
    submit = [sys.executable, "jobs/submit.py", cluster["RAY_ADDRESS"], *options]

    # Slow enough for two commands to come in time: without them it takes 48 s.
    process = start([*submit, "-o", "engine.fake_seconds_per_pair=1"], environment=cluster)
    process.wait_until(lambda: len(parts(output)) >= 3)
    (first,) = re.findall(r"--submission-id=(rgpt-[0-9a-f]{12}-1) ", process.output)
    # The same once more starts nothing: it follows what runs.
    again = start(submit, environment=cluster)
    again.wait_until(lambda: f"ray job logs --address={cluster['RAY_ADDRESS']}" in again.output)
    assert f"{first}: running" in again.output and "--submission-id" not in again.output
    code, said = finish([RAY, "job", "stop", first], environment=cluster)
    assert code == 0, said
    process.wait()
    again.wait()
    assert "stopped by SIGTERM" in process.output
    assert read_status(output)["state"] == "stopped"
    committed = identities(output)
    assert 3 <= len(committed) < job.num_units

    second = first.removesuffix("1") + "2"
    code, said = finish(submit, environment=cluster)
    assert code == 0, said
    assert f"Job '{second}' succeeded" in said
    assert f"{len(committed) * 4} before" in said
    assert committed.items() <= identities(output).items()
    assert row_differences(clean_rows, read_output(output)) == []

    code, said = finish(submit, environment=cluster)
    assert code == 0, said
    assert f"{second}: succeeded" in said and "--submission-id" not in said
