"""What is measured on, and how fast it multiplies matrices."""

from __future__ import annotations

import functools
import math
import os
import time
from typing import Literal

from rgpt_batch.engines.hardware import processor_name


def has_gpu() -> bool:
    """Whether there is a CUDA device."""
    import torch

    return bool(torch.cuda.is_available())


def hardware_name() -> str:
    """Name the GPU, or the processor and its cores."""
    import torch

    if has_gpu():
        return str(torch.cuda.get_device_name())
    return f"{os.cpu_count()} cores of {processor_name()}"


def default_dtype() -> Literal["float32", "bfloat16"]:
    """Return bfloat16 where the hardware computes in it; others emulate it, 50 times slower."""
    import torch

    has_bfloat16 = has_gpu() or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if has_bfloat16 else "float32"


@functools.cache
def matmul_flops_per_second(dtype: str, seconds: float = 2.0) -> float:
    """Measure dense matrix products, once: the roof of any score.

    Args:
        dtype: Of the matrices, a name in torch.
        seconds: For how long. The best product counts, since other programs only slow it down.
    """
    import torch

    device = "cuda" if has_gpu() else "cpu"
    size = 8192 if device == "cuda" else 1024
    left, right = (
        torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2)
    )
    best = math.inf
    end = time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        finished = time.perf_counter()
        best = min(best, finished - started)
        if finished > end:
            return 2.0 * size**3 / best
