"""How many workers fit on a cluster, and what each of them gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.formatting import format_count


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResources:
    """How many workers a job has, and what each of them takes."""

    num_workers: int
    gpus: float
    cpus: float

    def __str__(self) -> str:
        cpus = format_count(self.cpus, "CPU")
        return f"{format_count(self.gpus, 'GPU')} and {cpus}" if self.gpus else cpus


def fit_workers(
    config: JobConfig, nodes: Sequence[dict[str, float]], num_units: int
) -> WorkerResources:
    """Decide the number of workers, and GPUs and CPUs per worker.

    Args:
        config: The job's.
        nodes: Resources of every node of the cluster.
        num_units: There are never more workers than units.

    Raises:
        ConfigError: No node is large enough for a worker.
    """
    executor, is_fake = config.executor, config.engine.method == "fake"
    gpus = executor.gpus_per_worker
    if gpus is None:
        has_gpus = any(node.get("GPU") for node in nodes)
        gpus = config.engine.tensor_parallel_size if has_gpus and not is_fake else 0
    if gpus > 1 and gpus != int(gpus):
        raise ConfigError(
            f"executor.gpus_per_worker is {gpus:g}: above 1, Ray takes whole numbers only."
        )
    cpus = executor.cpus_per_worker
    num_workers = executor.num_workers
    if num_workers is None:
        num_workers = _num_fitting(nodes, gpus, 1 if cpus is None else cpus) if gpus else 1
    num_workers = max(1, min(num_workers, num_units))
    if cpus is None:
        cpus = 1 if gpus or is_fake else _even_share(nodes, num_workers)
    resources = WorkerResources(num_workers=num_workers, gpus=gpus, cpus=cpus)
    if not _num_fitting(nodes, gpus, cpus):
        sizes = {(node.get("GPU", 0), node.get("CPU", 0)) for node in nodes}
        found = ", ".join(
            f"{format_count(g, 'GPU')} and {format_count(c, 'CPU')}"
            for g, c in sorted(sizes, reverse=True)
        )
        raise ConfigError(
            f"a worker needs {resources} on one node, but the cluster's nodes have {found}. "
            "Set executor.cpus_per_worker, executor.gpus_per_worker or "
            "engine.tensor_parallel_size."
        )
    return resources


def _num_fitting(nodes: Sequence[dict[str, float]], gpus: float, cpus: float) -> int:
    """Count the workers for which the nodes have room while nothing else runs."""
    wanted = {name: amount for name, amount in (("GPU", gpus), ("CPU", cpus)) if amount}
    if not wanted:
        return len(nodes) * 1000
    return sum(
        min(math.floor(node.get(name, 0) / amount) for name, amount in wanted.items())
        for node in nodes
    )


def _even_share(nodes: Sequence[dict[str, float]], num_workers: int) -> int:
    """Return the most CPUs that each of so many workers can have; at least 1."""
    most = math.floor(max(node.get("CPU", 0) for node in nodes))
    shares = (cpus for cpus in range(most, 1, -1) if _num_fitting(nodes, 0, cpus) >= num_workers)
    return next(shares, 1)
