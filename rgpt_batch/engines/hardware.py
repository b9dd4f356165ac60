"""What an engine computes on, as people name it."""

from __future__ import annotations

import os
import platform
import sys

from rgpt_batch.engines.memory import main_memory, visible_gpus
from rgpt_batch.formatting import format_bytes, format_count


def worker_hardware() -> str:
    """Name what the engine of this process computes on: `NVIDIA H100 80GB HBM3, 79.2 GiB`.

    Without a GPU it is the processor, as in `2 cores of AMD EPYC 7R13, 23.4 GiB`. torch is asked
    for GPUs only where an engine has loaded it: without torch nothing computes on one.
    """
    gpus = visible_gpus() if "torch" in sys.modules else []
    if not gpus:
        cores = format_count(len(os.sched_getaffinity(0)), "core")
        return f"{cores} of {processor_name()}, {format_bytes(main_memory()[0])}"
    name = f"{gpus[0].name}, {format_bytes(gpus[0].num_bytes)}"
    return name if len(gpus) == 1 else f"{len(gpus)} x {name}"


def processor_name() -> str:
    """Return the processor's model, or where the system does not tell it its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
