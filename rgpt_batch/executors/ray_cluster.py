"""Whether a Ray cluster answers, asked from outside: Ray itself waits for one that is gone."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

ANSWER_SECONDS = 30

_logger = logging.getLogger(__name__)


def count_nodes() -> int | None:
    """Count the nodes of the cluster that RAY_ADDRESS names, or that runs on this machine.

    Returns:
        None where there is no cluster.

    Raises:
        TimeoutError: There was one, and it does not answer: it was killed, perhaps.
    """
    address = os.environ.get("RAY_ADDRESS") or _on_record()
    if ":" in address and not answers(address):
        # Ray would ask it again and again.
        raise TimeoutError
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


def answers(address: str) -> bool:
    """Whether something listens at host:port, or at ray://host:port."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        # An address of IPv6 stands in brackets.
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _on_record() -> str:
    """Where the cluster listens that `ray start` has started here; empty where there was none."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        return (Path(folder) / "ray" / "ray_current_cluster").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def cluster_answers() -> bool:
    """Whether the cluster that is on record here can be joined; if not, that is logged."""
    try:
        if count_nodes() is not None:
            return True
    except TimeoutError:
        pass
    _logger.warning("the Ray cluster that ran here does not answer: starting another for this job")
    return False
