"""How much memory this machine has for a model."""

from __future__ import annotations

import os
from dataclasses import dataclass


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


def machine_memory() -> Memory:
    """Ask the system, and CUDA if there is one."""
    import torch

    gpus = [
        int(torch.cuda.get_device_properties(number).total_memory)
        for number in range(torch.cuda.device_count())
    ]
    return Memory(
        cpu=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), gpu=max(gpus, default=0)
    )
