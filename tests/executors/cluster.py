"""The one Ray cluster that all tests of a session share."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path

import ray

NUM_CPUS = 4
# Loading a tokenizer imports torch, five seconds for every process. The fake engine needs none.
WITHOUT_TORCH = str(Path(__file__).parent.parent / "e2e" / "without_torch")


@functools.cache
def shared_cluster() -> str:
    """Start the cluster on first use and return its address; it ends with this process."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = WITHOUT_TORCH
    try:
        context = ray.init(
            address="local",
            num_cpus=NUM_CPUS,
            logging_level="ERROR",
            log_to_driver=False,
            include_dashboard=False,
        )
    finally:
        del os.environ["PYTHONPATH"]
        if path is not None:
            os.environ["PYTHONPATH"] = path
    return str(context.address_info["gcs_address"])


def wait_until_idle(seconds: float = 30) -> None:
    """Wait until no actor holds a CPU of the shared cluster; fail if one still does at the end."""
    deadline = time.monotonic() + seconds
    while ray.available_resources().get("CPU", 0) < NUM_CPUS:
        assert time.monotonic() < deadline, "an actor stayed behind"
        time.sleep(0.05)
