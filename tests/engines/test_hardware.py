"""What a worker says that it computes on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

from rgpt_batch.engines.hardware import processor_name
from rgpt_batch.engines.memory import main_memory
from rgpt_batch.formatting import format_bytes


def test_without_torch_it_is_the_processor_with_the_cores_that_the_process_may_use() -> None:
    code = (
        "import sys\n"
        "from rgpt_batch.engines.hardware import worker_hardware\n"
        "print(worker_hardware())\n"
        "assert 'torch' not in sys.modules, 'two seconds, and memory on each GPU'"
    )
    cores = os.sched_getaffinity(0)
    done = subprocess.run(
        ["taskset", "-c", str(min(cores)), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    memory = format_bytes(main_memory()[0])
    assert done.stdout == f"1 core of {processor_name()}, {memory}\n"


def test_the_processor_is_called_as_linux_calls_it() -> None:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    assert processor_name() in (names or {platform.machine()})
