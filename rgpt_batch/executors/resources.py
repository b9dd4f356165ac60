"""How many workers a job has, what each of them gets, and how many a cluster has room for."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.formatting import format_count

# What Ray says of one node: the amount of each resource that it has when nothing runs.
Node = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResources:
    """How many workers a job has, and what each of them takes."""

    num_workers: int
    gpus: float
    cpus: float

    def __str__(self) -> str:
        return _describe(self.gpus, self.cpus)

    def num_fitting(self, node: Node) -> int:
        """Count the workers for which a node has room when nothing else runs there."""
        return _num_fitting(node, self.gpus, self.cpus)


def plan_workers(
    config: JobConfig, nodes: Collection[Node], num_units: int, *, can_grow: bool
) -> WorkerResources:
    """Decide the number of workers, and GPUs and CPUs per worker.

    Args:
        config: The job's.
        nodes: Every node that the cluster has now.
        num_units: There are never more workers than units.
        can_grow: Whether nodes may join the cluster later.

    Raises:
        ConfigError: The options contradict each other, or say too little for a cluster that has
            no nodes yet; or no node is large enough for a worker, and none can join.
    """
    executor, is_fake = config.executor, config.engine.method == "fake"
    gpus = executor.gpus_per_worker
    if gpus is None:
        gpus = _default_gpus(config, nodes, can_grow=can_grow)
    _check_gpus(config, gpus)
    cpus = executor.cpus_per_worker
    num_workers = executor.most_workers
    if num_workers is None:
        share = 1 if cpus is None else cpus
        num_fitting = sum(_num_fitting(node, gpus, share) for node in nodes) if gpus else 1
        num_workers = max(num_fitting, executor.least_workers)
    num_workers = max(1, min(num_workers, num_units))
    if cpus is None:
        cpus = 1 if gpus or is_fake else _even_share(nodes, num_workers)
    resources = WorkerResources(num_workers=num_workers, gpus=gpus, cpus=cpus)
    if not can_grow and not any(map(resources.num_fitting, nodes)):
        raise ConfigError(
            f"a worker needs {resources} on one node, but {describe_nodes(nodes)}. Set "
            "executor.cpus_per_worker, executor.gpus_per_worker (0 for an engine on CPUs), "
            "engine.tensor_parallel_size or engine.pipeline_parallel_size."
        )
    return resources


def describe_nodes(nodes: Collection[Node]) -> str:
    """Say which sizes of nodes a cluster has."""
    sizes = sorted({(node.get("GPU", 0), node.get("CPU", 0)) for node in nodes}, reverse=True)
    if not any(cpus or gpus for gpus, cpus in sizes):
        return "the cluster has no node with GPUs or CPUs yet"
    found = (f"{format_count(g, 'GPU')} and {format_count(c, 'CPU')}" for g, c in sizes)
    return f"the cluster's nodes have {', '.join(found)}"


def _describe(gpus: float, cpus: float) -> str:
    counts = [(gpus, "GPU"), (cpus, "CPU")] if gpus else [(cpus, "CPU")]
    return " and ".join(format_count(amount, noun) for amount, noun in counts)


def _default_gpus(config: JobConfig, nodes: Collection[Node], *, can_grow: bool) -> int:
    """Return what a worker gets where the configuration does not say it."""
    if config.engine.method == "fake":
        return 0
    size = config.engine.num_ranks
    # GPUs that share one engine have been asked for, whether or not they are there yet.
    if size > 1 or any(node.get("GPU") for node in nodes):
        return size
    if not can_grow:
        return 0
    raise ConfigError(
        "nothing tells whether engines run on GPUs or on CPUs: the cluster has no GPUs, and nodes "
        "with GPUs may join it later. Set executor.gpus_per_worker: 1 for a GPU each, 0 for CPUs; "
        "and executor.max_workers."
    )


def _check_gpus(config: JobConfig, gpus: float) -> None:
    if gpus > 1 and gpus != int(gpus):
        raise ConfigError(
            f"executor.gpus_per_worker is {gpus:g}: above 1, Ray takes whole numbers only."
        )
    size = config.engine.num_ranks
    if 0 < gpus < size and size > 1:
        raise ConfigError(
            f"executor.gpus_per_worker is {gpus:g}, but the configuration lets {size} GPUs "
            f"share one engine. Set executor.gpus_per_worker={size}."
        )


def _num_fitting(node: Node, gpus: float, cpus: float) -> int:
    wanted = {name: amount for name, amount in (("GPU", gpus), ("CPU", cpus)) if amount}
    if not wanted:
        return 1000
    return min(math.floor(node.get(name, 0) / amount) for name, amount in wanted.items())


def _even_share(nodes: Collection[Node], num_workers: int) -> int:
    """Return the largest number of CPUs that so many workers can have at once; at least 1."""
    most = math.floor(max((node.get("CPU", 0) for node in nodes), default=0))
    if not most:
        raise ConfigError(
            "the cluster has no CPUs yet that the workers could share. Set "
            "executor.cpus_per_worker to what each of them needs."
        )
    for cpus in range(most, 1, -1):
        if sum(_num_fitting(node, 0, cpus) for node in nodes) >= num_workers:
            return cpus
    return 1
