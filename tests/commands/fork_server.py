"""Functions as processes that start in milliseconds and can be killed.

They are forked from the process's fork server, of which there is one, so that it has imported what
any of them needs. It has no threads and no connections to be shared.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any
from unittest import mock

from tests.commands.start import WITHOUT_TORCH

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("rgpt_batch.engines.fake", "rgpt_batch.executors.local"),
        *("tests.output.commands", "tests.publishing.commands"),
        *("tests.engines.test_starts", "tests.executors.mortal"),
    ]
)


def run_fork_server() -> None:
    """Start the fork server, where none runs yet."""
    # Torch takes seconds to import, and nothing here needs it.
    with mock.patch.dict(os.environ, PYTHONPATH=WITHOUT_TORCH):
        multiprocessing.forkserver.ensure_running()


def process(target: Callable[..., Any], *arguments: Any) -> ForkServerProcess:
    """Start a function of a module."""
    run_fork_server()
    started = _context.Process(target=target, args=arguments, daemon=True)
    started.start()
    return started
