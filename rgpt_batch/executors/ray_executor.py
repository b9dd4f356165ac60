"""Workers as Ray actors. Of all modules only those called ray_* import Ray.

The driver hands out units; actors read, score and commit them. Rows never pass through Ray's object
store. Why not Ray Data: docs/adr/0003-ray-core-loop.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayError
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import EngineDead, EngineStartError
from rgpt_batch.executors.base import WAITING_FOR_OTHERS, Executor, MakeWorker
from rgpt_batch.executors.cluster_watch import ClusterWatch
from rgpt_batch.executors.patience import Patience
from rgpt_batch.executors.places import Places
from rgpt_batch.executors.process_log import RunLogs
from rgpt_batch.executors.ray_connection import connect
from rgpt_batch.executors.ray_slot import (
    Slot,
    WorkerActor,
    alive_nodes,
    cause_of,
    is_lost,
    start_error,
)
from rgpt_batch.executors.resources import plan_workers
from rgpt_batch.executors.unit_queue import UnitQueue
from rgpt_batch.formatting import format_count
from rgpt_batch.output.claims import Claims
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit

_WAIT_SECONDS = 1.0
# A round of the loop looks at every worker. With many of them, several outcomes are taken in one.
_REST_SECONDS_PER_WORKER = 1e-4


class RayExecutor(Executor):
    """Runs one actor for each worker, on the nodes of a Ray cluster."""

    def __init__(self, config: JobConfig, logs: RunLogs | None = None) -> None:
        self.activity = "starting or joining Ray"
        self._job_config, self._logs = config, logs
        self._config = config.executor
        self._slots: list[Slot] = []
        # Actors that keep a GPU on which no engine starts, so that no other gets it.
        self._keepers: list[Any] = []
        self._patience = Patience(config.executor.unit_timeout_seconds)
        self._owns_ray = False
        # Whoever has connected this process may have an autoscaler.
        self._can_grow = True

    def __enter__(self) -> Self:
        self._owns_ray, self._can_grow = connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for actor in [*self._keepers, *(slot.actor for slot in self._slots)]:
                ray.kill(actor)
        finally:
            if self._owns_ray:
                ray.shutdown()

    @override
    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker, claims: Claims | None = None
    ) -> Iterator[UnitReport | UnitFailure]:
        resources = plan_workers(
            self._job_config, alive_nodes().values(), len(units), can_grow=self._can_grow
        )
        self._make_worker = make_worker
        self._options: dict[str, Any] = {
            "num_cpus": resources.cpus,
            "num_gpus": resources.gpus,
            "max_concurrency": self._config.units_in_flight,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._num_asked = resources.num_workers
        self._has_gpus = resources.gpus > 0
        self._places = Places(resources)
        self._watch = ClusterWatch(resources, self._places, self._config, can_grow=self._can_grow)
        waiting = UnitQueue(units, self._config.max_attempts, claims)
        self._slots = [self._start() for _ in range(resources.num_workers)]
        while waiting.has_more or any(slot.in_flight for slot in self._slots):
            self._look_at_cluster(waiting)
            self._fill(waiting)
            self.activity = self._describe_activity(waiting)
            for slot, ref in self._next_done():
                # A worker that died has taken back what else it had in flight.
                if slot not in self._slots or ref not in slot.awaited:
                    continue
                if ref == slot.placing:
                    self._after_placing(slot)
                elif ref == slot.starting:
                    self._after_start(slot)
                else:
                    yield from self._after_task(slot, ref, waiting)
            self._end_hung_starts()
            yield from self._end_hung_workers(waiting)

    def _start(self) -> Slot:
        options = dict(self._options)
        if bad_nodes := self._places.bad_nodes():
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(bad_nodes)})"}
        actor = ray.remote(WorkerActor).options(**options).remote(self._logs)
        return Slot(actor, actor.place.remote())

    def _look_at_cluster(self, waiting: UnitQueue) -> None:
        num_placed = sum(slot.place is not None for slot in self._slots)
        self._watch.look(alive_nodes, num_placed=num_placed, num_asked=len(self._slots))
        # These have a unit each before long.
        free = [slot for slot in self._slots if not slot.in_flight]
        if not self._places.is_bad(None):
            num_new = min(self._most_workers() - len(self._slots), len(waiting) - len(free))
            self._slots += [self._start() for _ in range(num_new)]
        num_idle = min(len(free) - len(waiting), len(self._slots) - self._config.least_workers)
        # An autoscaler brings no machine for a worker that has no place and is not wanted any more.
        free.sort(key=lambda slot: (slot.is_ready, slot.place is not None))
        for slot in free[: max(0, num_idle)]:
            self._remove(slot)

    def _most_workers(self) -> int:
        if self._config.most_workers is not None:
            return self._config.most_workers
        # One worker per GPU: those of nodes that join later as well.
        return self._watch.num_fitting if self._has_gpus else self._num_asked

    def _fill(self, waiting: UnitQueue) -> None:
        """Hand out units, to each worker no more than its share of what is left."""
        # Nothing is kept back for workers that may never get a place.
        num_placed = sum(slot.place is not None for slot in self._slots)
        num_sharing = max(num_placed, min(len(self._slots), self._watch.room))
        num_in_flight = sum(len(slot.in_flight) for slot in self._slots)
        share = waiting.share(num_in_flight, num_sharing)
        for slot in self._slots:
            while slot.is_ready and len(slot.in_flight) < min(share, self._config.units_in_flight):
                if any(waiting.is_suspect(task.unit) for task in slot.in_flight.values()):
                    break
                task = waiting.take(alone=not slot.in_flight)
                if task is None:
                    break
                if not slot.in_flight:
                    slot.silent_since = time.monotonic()
                slot.in_flight[slot.actor.run.remote(task)] = task

    def _describe_activity(self, waiting: UnitQueue) -> str:
        num_ready = sum(slot.is_ready for slot in self._slots)
        if num_ready and not len(waiting) and not any(slot.in_flight for slot in self._slots):
            return WAITING_FOR_OTHERS
        workers = format_count(len(self._slots), "worker")
        if num_ready == len(self._slots):
            return f"scoring on {workers}"
        if num_ready:
            return f"scoring on {num_ready} of {workers}"
        if num_placed := sum(slot.place is not None for slot in self._slots):
            of_workers = workers if num_placed == len(self._slots) else f"{num_placed} of {workers}"
            return f"starting {of_workers}"
        return self._watch.describe(len(self._slots))

    def _next_done(self) -> list[tuple[Slot, Any]]:
        """Wait a little for results; an empty list lets the caller look at signals and queues."""
        owners = {ref: slot for slot in self._slots for ref in slot.awaited}
        if not owners:
            # All that is left is with other processes.
            time.sleep(_WAIT_SECONDS)
            return []
        done, _ = ray.wait(list(owners), num_returns=1, timeout=_WAIT_SECONDS)
        if done and len(owners) > 1:
            time.sleep(len(self._slots) * _REST_SECONDS_PER_WORKER)
            done, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        return [(owners[ref], ref) for ref in done]

    def _after_placing(self, slot: Slot) -> None:
        try:
            place, slot.log = ray.get(slot.placing)
        except RayError as error:
            self._after_failed_start(slot, start_error(error))
            return
        self._places.works(None)
        if not self._places.is_bad(place):
            slot.place = place
            slot.starting = slot.actor.start.remote(self._make_worker)
            slot.loading_since = time.monotonic()
        elif place.gpus:
            self._keepers.append(slot.actor)
            self._slots[self._slots.index(slot)] = self._start()
        else:
            self._replace(slot)

    def _after_start(self, slot: Slot) -> None:
        try:
            ray.get(slot.starting)
        except RayError as error:
            self._after_failed_start(slot, start_error(error, slot.log))
        else:
            slot.is_ready = True
            self._places.works(slot.place)

    def _after_failed_start(self, slot: Slot, cause: EngineStartError) -> None:
        self._places.failed(slot.place)
        self._watch.cause = cause
        if slot.place is not None or not self._places.is_bad(None):
            self._replace(slot)
        elif len(self._slots) > 1:
            self._remove(slot)
        else:
            raise cause

    def _end_hung_starts(self) -> None:
        # Waiting for a place does not count: others may hold the resources for long.
        limit = self._config.start_timeout_seconds
        for slot in [slot for slot in self._slots if slot.starting and not slot.is_ready]:
            if time.monotonic() - slot.loading_since > limit:
                cause = EngineStartError(
                    f"a worker's engine was not loaded within {limit:g} s. Raise "
                    "executor.start_timeout_seconds if it needs longer."
                )
                self._after_failed_start(slot, slot.noted(cause))

    def _after_task(
        self, slot: Slot, ref: Any, waiting: UnitQueue
    ) -> Iterator[UnitReport | UnitFailure]:
        try:
            report = ray.get(ref)
        except RayError as error:
            cause = cause_of(error, slot.log)
            if isinstance(cause, EngineDead):
                yield from self._after_crash(slot, cause, waiting, blame=not is_lost(error, slot))
                return
            task = slot.in_flight.pop(ref)
            if failure := waiting.failed(task, cause):
                yield failure
        else:
            task = slot.in_flight.pop(ref)
            waiting.done(task)
            if report is not None:
                self._patience.learn(task.unit, report)
                yield waiting.with_attempts(report)
        slot.silent_since = time.monotonic()

    def _end_hung_workers(self, waiting: UnitQueue) -> Iterator[UnitFailure]:
        for slot in [slot for slot in self._slots if slot.in_flight]:
            limit = self._patience.seconds(task.unit for task in slot.in_flight.values())
            if time.monotonic() - slot.silent_since > limit:
                cause = EngineDead(
                    f"the worker hung: no unit was done within {limit:.0f} s, see "
                    "executor.unit_timeout_seconds"
                )
                yield from self._after_crash(slot, slot.noted(cause), waiting)

    def _after_crash(
        self, slot: Slot, cause: EngineDead, waiting: UnitQueue, *, blame: bool = True
    ) -> list[UnitFailure]:
        failures = waiting.crashed(list(slot.in_flight.values()), cause, blame=blame)
        slot.in_flight.clear()
        # An engine has run there; others may have failed to start on the same node since.
        self._places.works(slot.place)
        if waiting.has_more:
            self._replace(slot)
        else:
            self._remove(slot)
        return failures

    def _replace(self, slot: Slot) -> None:
        self.num_restarts += 1
        ray.kill(slot.actor)
        self._slots[self._slots.index(slot)] = self._start()

    def _remove(self, slot: Slot) -> None:
        ray.kill(slot.actor)
        self._slots.remove(slot)
