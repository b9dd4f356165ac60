"""This process joins a Ray cluster, or starts one."""

from __future__ import annotations

import os
import signal
import threading

import ray

from rgpt_batch.errors import EngineStartError, Interrupted
from rgpt_batch.executors.ray_cluster import cluster_answers


def connect() -> tuple[bool, bool]:
    """Join the cluster that RAY_ADDRESS names or that runs here; start one where there is none.

    Returns:
        Whether the connection was made here and is to be closed, and whether nodes may join the
        cluster later.

    Raises:
        EngineStartError: No cluster can be joined or started.
        Interrupted: SIGTERM came.
    """
    if ray.is_initialized():
        # Whoever has connected this process may have an autoscaler.
        return False, True
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        return True, not _init_ray()
    except BaseException as error:
        ray.shutdown()
        if isinstance(error, SystemExit):
            # This is what the handler does that Ray puts in the place of the job's.
            raise Interrupted(signal.SIGTERM) from error
        if isinstance(error, Exception):
            raise EngineStartError(
                f"cannot start or join a Ray cluster: {error}. Check RAY_ADDRESS "
                f"({os.environ.get('RAY_ADDRESS', 'not set')}); RAY_ADDRESS=local starts a "
                "cluster on this machine. A cluster that wants a token, as `ray start` may, needs "
                "RAY_AUTH_MODE=token."
            ) from error
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm or signal.SIG_DFL)


def _init_ray() -> bool:
    """Join the cluster that RAY_ADDRESS names or that runs here, else start one; return if so."""
    options = {"logging_level": "ERROR", "log_to_driver": False, "include_dashboard": False}
    if os.environ.get("RAY_ADDRESS", "") in ("", "local"):
        try:
            # Ray takes resources, even none, for a cluster that it starts alone.
            ray.init(**options, resources={})
            return True
        except ValueError:
            # One is on record here. Ray would wait for it though its processes are gone.
            if not cluster_answers():
                ray.init("local", **options, resources={})
                return True
    ray.init(**options)
    return False
