"""Where engines do not start, and whether a cluster has a place left to try."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rgpt_batch.executors.resources import Node, WorkerResources

# After this many starts in a row without a working engine, the cause will not go away by itself.
_MAX_START_FAILURES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker lives: some GPUs of a node, or a node as such."""

    node_id: str
    gpus: tuple[str, ...]


class Places:
    """Counts failed starts, place by place: one broken GPU says nothing of the others.

    A place is bad when three starts in a row have failed there. It is not used again.
    """

    def __init__(self, resources: WorkerResources) -> None:
        self._resources = resources
        self._num_failures: Counter[Place | None] = Counter()

    def failed(self, place: Place | None) -> None:
        """Count a start that failed; the place is None where the process never lived to tell it."""
        self._num_failures[place] += 1

    def works(self, place: Place | None) -> None:
        """Forget the failures of a place, since an engine has started there (None: a process)."""
        self._num_failures.pop(place, None)

    def is_bad(self, place: Place | None) -> bool:
        """Whether starting there is given up."""
        return self._num_failures[place] >= _MAX_START_FAILURES

    def bad_nodes(self) -> list[str]:
        """Return the ids of nodes that are bad as such."""
        return sorted(place.node_id for place in self._bad() if not place.gpus)

    def room(self, nodes: Mapping[str, Node]) -> int:
        """Count the workers for which the nodes, by their ids, have places that are not bad."""
        per_place = max(1, int(1 / self._resources.gpus)) if self._resources.gpus else None
        room = 0
        for node_id, node in nodes.items():
            num_bad = sum(place.node_id == node_id for place in self._bad())
            num_fitting = self._resources.num_fitting(node)
            if per_place is not None:
                room += max(0, num_fitting - num_bad * per_place)
            elif not num_bad:
                room += num_fitting
        return room

    def _bad(self) -> list[Place]:
        return [place for place in self._num_failures if place is not None and self.is_bad(place)]
