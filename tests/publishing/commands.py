"""Publications as processes that start in milliseconds and can be killed; see output.commands."""

from __future__ import annotations

import os
from multiprocessing.context import ForkServerProcess

from tests.commands import fork_server
from tests.publishing.tables import Target


def start_publishing(target: Target, output: str) -> ForkServerProcess:
    """Publish in a process with this one's environment."""
    return fork_server.process(_publish, dict(os.environ), target, output)


def _publish(environment: dict[str, str], target: Target, output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    try:
        target.publish(output)
    except BaseException:
        os._exit(1)
    os._exit(0)
