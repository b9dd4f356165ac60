"""Ray clusters in this process: the one that all tests of a session share, and others."""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.commands.start import WITHOUT_TORCH

NUM_CPUS = 4
_DEADLINE_SECONDS = 180.0


def start_cluster(*, num_cpus: int) -> Cluster:
    """Start a head whose workers see no torch. Costs some 6 s of CPU, a node more some 4 s."""
    cluster = Cluster()
    add_node(cluster, num_cpus=num_cpus, include_dashboard=False)
    return cluster


def add_node(cluster: Cluster, **options: Any) -> Any:
    """Add a node, the first of which is the head, and wait until the cluster has it."""
    before = set() if cluster.head_node is None else _alive(cluster)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", WITHOUT_TORCH)
        # Ray itself waits for 30 s, too short where others use the cores.
        node = cluster.add_node(wait=False, include_log_monitor=False, **options)
    _wait_for(lambda: _alive(cluster) - before)
    return node


def _alive(cluster: Cluster) -> set[str]:
    table = cluster.global_state.node_table()
    return {node["NodeID"] for node in table if node["Alive"]}


@functools.cache
def _shared() -> Cluster:
    cluster = start_cluster(num_cpus=NUM_CPUS)
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    atexit.register(_end, cluster)
    return cluster


def _end(cluster: Cluster) -> None:
    ray.shutdown()
    cluster.shutdown()


def shared_cluster() -> str:
    """Start the cluster on first use and return its address; it ends with this process."""
    return str(_shared().address)


def node_ids() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


@dataclass(frozen=True)
class JoinedNode:
    node_id: str
    node: Any

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
        _shared().remove_node(self.node, allow_graceful=False)


@contextmanager
def joined_node(*, num_cpus: int, num_gpus: int = 0) -> Iterator[JoinedNode]:
    """Let a node join the shared cluster and leave it again.

    The GPUs are numbers that Ray hands out: there are none. Costs some 4 s of CPU.
    """
    shared_cluster()
    before = node_ids()
    node = add_node(_shared(), num_cpus=num_cpus, num_gpus=num_gpus)
    try:
        (node_id,) = _wait_for(lambda: node_ids() - before)
        yield JoinedNode(node_id, node)
    finally:
        if node in _shared().worker_nodes:
            _shared().remove_node(node)
        _wait_for(lambda: node_ids() <= before)


def wait_until_idle(seconds: float = _DEADLINE_SECONDS) -> None:
    """Wait until no actor holds anything of the shared cluster; fail if one is still left then.

    What is free is Ray's own count, which has once, on busy cores, not come back. So who is left is
    asked in the end; the count may still be wrong then.
    """
    deadline = time.monotonic() + seconds
    while any(
        ray.available_resources().get(name, 0) < number
        for name, number in ray.cluster_resources().items()
        if name in ("CPU", "GPU")
    ):
        if time.monotonic() > deadline:
            assert _actors() == []
            break
        time.sleep(0.05)


def _actors() -> list[tuple[str, str, str]]:
    """Name the actors that are not dead, with their states and nodes."""
    actors = _shared().global_state.actor_table(None).values()
    return [
        (actor["ActorClassName"], actor["State"], actor["Address"]["NodeID"])
        for actor in actors
        if actor["State"] != "DEAD"
    ]


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
