"""What is measured on, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def has_gpu() -> bool:
    """Whether there is a CUDA device."""
    import torch

    return bool(torch.cuda.is_available())


def hardware_name() -> str:
    """Name the GPU, or the processor and its cores."""
    import torch

    if has_gpu():
        return str(torch.cuda.get_device_name())
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} cores of {processor}"


def matmul_flops_per_second(seconds: float = 2.0) -> float:
    """Measure dense bfloat16 matrix products: the roof of any score."""
    import torch

    device = "cuda" if has_gpu() else "cpu"
    size = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))

    def timed(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed(2)
    count = max(1, round(seconds / timed(1)))
    return 2.0 * size**3 * count / timed(count)
