"""The one Ray cluster that all tests of a session share."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from tests.commands.start import WITHOUT_TORCH

NUM_CPUS = 4
_DEADLINE_SECONDS = 180.0


@functools.cache
def shared_cluster() -> str:
    """Start the cluster on first use and return its address; it ends with this process."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = WITHOUT_TORCH
    try:
        context = ray.init(
            address="local",
            num_cpus=NUM_CPUS,
            logging_level="ERROR",
            log_to_driver=False,
            include_dashboard=False,
        )
    finally:
        del os.environ["PYTHONPATH"]
        if path is not None:
            os.environ["PYTHONPATH"] = path
    return str(context.address_info["gcs_address"])


def node_ids() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@dataclass(frozen=True)
class JoinedNode:
    node_id: str
    process: subprocess.Popen[bytes]

    def announce_end(self) -> None:
        """Tell Ray, as a cloud's notice does, that the machine will be taken back."""
        command: list[str | Path] = [
            *(Path(sys.executable).parent / "ray", "drain-node"),
            *(f"--address={shared_cluster()}", f"--node-id={self.node_id}"),
            "--reason=DRAIN_NODE_REASON_PREEMPTION",
            *("--reason-message=taken back", "--deadline-remaining-seconds=600"),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=_DEADLINE_SECONDS)

    def lose(self) -> None:
        """Let it vanish without a word, and its workers with it. Ray notices after some 20 s."""
        os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def joined_node(*, num_cpus: int, num_gpus: int = 0) -> Iterator[JoinedNode]:
    """Let a node join the shared cluster and leave it again.

    The GPUs are numbers that Ray hands out: there are none. Costs some 3 s where cores are free.
    """
    before = node_ids()
    command: list[str | Path] = [
        *(Path(sys.executable).parent / "ray", "start", "--block", "--disable-usage-stats"),
        *(f"--address={shared_cluster()}", f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}"),
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": WITHOUT_TORCH},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        (node_id,) = _wait_for(lambda: node_ids() - before)
        yield JoinedNode(node_id, process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(_DEADLINE_SECONDS)
        _wait_for(lambda: node_ids() <= before)


def wait_until_idle(seconds: float = _DEADLINE_SECONDS) -> None:
    """Wait until no actor holds a CPU of the shared cluster; fail if one still does at the end."""
    wait_for_free_cpus(NUM_CPUS, seconds)


def wait_for_free_cpus(number: int, seconds: float = _DEADLINE_SECONDS) -> None:
    """Wait until so many CPUs of the shared cluster are held by no actor."""
    deadline = time.monotonic() + seconds
    while ray.available_resources().get("CPU", 0) < number:
        assert time.monotonic() < deadline, "an actor stayed behind"
        time.sleep(0.05)


def _wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, "the node did not come or go"
        time.sleep(0.05)
    return result
