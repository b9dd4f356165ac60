"""Which GPUs torch sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of this machine."""

    name: str
    memory_bytes: int


def visible_gpus() -> list[Gpu]:
    """List the GPUs that a process here would get.

    Raises:
        Exception: Of any kind: torch is not there, or does not start.
    """
    import torch

    found = (torch.cuda.get_device_properties(each) for each in range(torch.cuda.device_count()))
    return [Gpu(name=gpu.name, memory_bytes=gpu.total_memory) for gpu in found]
