"""How much memory this machine has for a model."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of main memory, and of the largest GPU; 0 where there is none."""

    cpu: int
    gpu: int

    def place_of(self, num_bytes: int) -> str | None:
        """Say where weights of so many bytes in 16 bit run: gpu, cpu, or nowhere.

        A fifth is left for all else. On CPUs weights are taken in float32, since many have no fast
        16 bit.
        """
        if num_bytes <= 0.8 * self.gpu:
            return "gpu"
        return "cpu" if 2 * num_bytes <= 0.8 * self.cpu else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of this machine."""

    name: str
    num_bytes: int


def machine_memory() -> Memory:
    """Ask the system, and CUDA if there is one; without torch nothing computes on a GPU."""
    total, _ = main_memory()
    gpus = visible_gpus() if importlib.util.find_spec("torch") else []
    return Memory(cpu=total, gpu=max((gpu.num_bytes for gpu in gpus), default=0))


def main_memory() -> tuple[int, int]:
    """Return the bytes of main memory: all that this process may have, and what nobody uses."""
    pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    total, free = (number * os.sysconf("SC_PAGE_SIZE") for number in pages)
    limit = container_limit(Path("/sys/fs/cgroup"))
    return (total, free) if limit is None else (min(total, limit), min(free, limit))


def container_limit(folder: Path) -> int | None:
    """Return the bytes that a container may have; None where nothing limits it.

    Args:
        folder: Where Linux shows the container's control group.
    """
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return int((folder / name).read_text())
        except (OSError, ValueError):
            continue  # Another version of control groups, or "max".
    return None


def visible_gpus() -> list[Gpu]:
    """List the GPUs that a process here would get.

    Raises:
        Exception: Of any kind: torch is not there, or does not start.
    """
    import torch

    found = (torch.cuda.get_device_properties(each) for each in range(torch.cuda.device_count()))
    return [Gpu(name=gpu.name, num_bytes=int(gpu.total_memory)) for gpu in found]
