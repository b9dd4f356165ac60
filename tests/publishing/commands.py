"""Publications as processes that start in milliseconds and can be killed; see output.commands."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
from multiprocessing.context import ForkServerProcess

# So that the fork server has them.
from tests.publishing.tables import Target

_fork_server = multiprocessing.get_context("forkserver")
_fork_server.set_forkserver_preload(["tests.publishing.commands"])


def start_publishing(target: Target, output: str) -> ForkServerProcess:
    """Publish in a process with this one's environment."""
    process = _fork_server.Process(
        target=_publish, args=(dict(os.environ), target, output), daemon=True
    )
    process.start()
    return process


def _publish(environment: dict[str, str], target: Target, output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    try:
        target.publish(output)
    except BaseException:
        os._exit(1)
    os._exit(0)
