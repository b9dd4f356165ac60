"""How long a job waits for a cluster that has no room for its workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rgpt_batch.config.executor import ExecutorConfig
from rgpt_batch.errors import EngineStartError
from rgpt_batch.executors.places import Places
from rgpt_batch.executors.resources import Node, WorkerResources, describe_nodes
from rgpt_batch.formatting import format_count

_LOOK_SECONDS = 1.0


class ClusterWatch:
    """Looks at the cluster's nodes now and then, and gives up when no worker can get a place.

    Attributes:
        num_fitting: Workers for which the cluster has places, free or not.
        room: The same without places where no engine starts.
        cause: Why the last start failed, if one did.
    """

    def __init__(
        self,
        resources: WorkerResources,
        places: Places,
        config: ExecutorConfig,
        *,
        can_grow: bool,
    ) -> None:
        self.num_fitting = 0
        self.room = 0
        self.cause: EngineStartError | None = None
        self._resources = resources
        self._places = places
        self._limit = config.place_timeout_seconds
        self._can_grow = can_grow
        self._nodes: Mapping[str, Node] = {}
        self._looked_at: float | None = None
        self._no_room_since: float | None = None

    def look(
        self, get_nodes: Callable[[], Mapping[str, Node]], *, num_placed: int, num_asked: int
    ) -> None:
        """See what the cluster has, at most once a second.

        Args:
            get_nodes: Returns the resources of the nodes by their ids.
            num_placed: Workers that have their places.
            num_asked: All workers that Ray was asked for.

        Raises:
            EngineStartError: No start can succeed, or the cluster has had no room for too long.
        """
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        self._nodes = get_nodes()
        self.num_fitting = sum(map(self._resources.num_fitting, self._nodes.values()))
        self.room = self._places.room(self._nodes)
        if num_placed or self.room:
            self._no_room_since = None
            return
        # Who has asked for more workers than the cluster can have may expect it to grow.
        may_grow = self._can_grow and num_asked > self.num_fitting
        if self.cause is not None and not may_grow:
            raise self.cause
        if self._no_room_since is None:
            self._no_room_since = now
        if now - self._no_room_since >= self._limit:
            raise EngineStartError(
                f"no place for a worker within {self._limit:g} s: the job asks for "
                f"{self._asked(num_asked)}; {self._found()}. Check the autoscaler's limits, "
                "executor.gpus_per_worker and executor.cpus_per_worker, or raise "
                "executor.place_timeout_seconds."
            ) from self.cause

    def describe(self, num_asked: int) -> str:
        """Say what workers wait for of which none has a place."""
        if self.room:
            return f"waiting until Ray has {self._resources} free for a worker"
        return f"waiting for {self._asked(num_asked)}; {self._found()}"

    def _asked(self, num_workers: int) -> str:
        workers = f"{format_count(num_workers, 'worker')} of {self._resources}"
        return f"{workers} each" if num_workers > 1 else workers

    def _found(self) -> str:
        if self.num_fitting:
            return f"where the cluster has room, no engine starts: {self.cause}"
        return describe_nodes(self._nodes.values())
