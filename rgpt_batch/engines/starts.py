"""Engines that share a GPU start one after the other, unless the size of their cache is given."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rgpt_batch.config.options import JobConfig
from rgpt_batch.storage.locks import locked


def starts_beside_others(config: JobConfig) -> bool:
    """Whether an engine may start while others start on the same GPU.

    vLLM measures how much memory is free before and after a trial step, to see how large its cache
    can be. It fails if another engine takes or frees memory in between. A cache of a given size it
    just takes.
    """
    return config.engine.kv_cache_bytes is not None


@contextmanager
def turn_to_start(config: JobConfig) -> Iterator[None]:
    """Wait until no other worker of this machine starts an engine on the same GPU.

    The lock is gone when its process is, however that ends.
    """
    share = config.executor.gpus_per_worker
    if share is None or not 0 < share < 1 or starts_beside_others(config):
        yield
        return
    # Ray sets it to the worker's GPU.
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    name = "".join(c if c.isalnum() else "-" for c in f"rgpt-batch-{os.getuid()}-gpu-{gpu}")
    path = Path(tempfile.gettempdir(), f"{name}.lock")
    with locked(path):
        yield
