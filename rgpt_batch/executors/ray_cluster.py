"""Whether a Ray cluster answers, asked from outside: Ray itself waits for one that is gone."""

from __future__ import annotations

import logging
import subprocess
import sys

ANSWER_SECONDS = 30

_logger = logging.getLogger(__name__)


def count_nodes() -> int | None:
    """Count the nodes of the cluster that RAY_ADDRESS names, or that runs on this machine.

    Returns:
        None where there is no cluster.

    Raises:
        TimeoutError: There was one, and it does not answer in time: it was killed, perhaps.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "status"],
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    if done.returncode:
        return None
    return done.stdout.partition("Active:")[2].partition("Pending:")[0].count("node_")


def cluster_answers() -> bool:
    """Whether the cluster that is on record here can be joined; if not, that is logged."""
    try:
        if count_nodes() is not None:
            return True
    except TimeoutError:
        pass
    _logger.warning("the Ray cluster that ran here does not answer: starting another for this job")
    return False
