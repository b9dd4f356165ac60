"""Workers as Ray actors. The only module that imports Ray.

The driver hands out units; actors read, score and commit them. Rows never pass through Ray's object
store. Why not Ray Data: docs/adr/0003-ray-core-loop.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rgpt_batch.config import JobConfig
from rgpt_batch.errors import ConfigError, EngineDead, EngineStartError, RgptBatchError
from rgpt_batch.executors.base import MakeWorker, UnitQueue, Worker
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit

# After this many starts in a row without a working engine, the cause will not go away by itself.
_MAX_START_FAILURES = 3
_WAIT_SECONDS = 1.0


class _Actor:
    """Holds the worker in a process of its own."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def start(self, make_worker: MakeWorker) -> None:
        """Load the engine; a method, so that the driver sees the cause of a failure."""
        self._worker = make_worker(f"{ray.util.get_node_ip_address()}-{os.getpid()}")

    def run(self, unit: WorkUnit) -> UnitReport:
        """Bring one unit from reading to commit."""
        assert self._worker is not None, "start() comes first"
        return self._worker.run(unit)


@dataclass
class _Slot:
    """A worker as the driver sees it."""

    actor: Any
    starting: Any
    in_flight: dict[Any, WorkUnit] = field(default_factory=dict)
    is_ready: bool = False


class RayExecutor:
    """See Executor."""

    def __init__(self, config: JobConfig) -> None:
        self._config = config.executor
        self._tensor_parallel_size = config.engine.tensor_parallel_size
        self._is_fake = config.engine.method == "fake"
        self._slots: list[_Slot] = []
        self._owns_ray = False

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            # Joins the cluster that RAY_ADDRESS names or that runs here, else starts one.
            ray.init(logging_level="ERROR", log_to_driver=False, include_dashboard=False)
            self._owns_ray = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for slot in self._slots:
            ray.kill(slot.actor)
        if self._owns_ray:
            ray.shutdown()

    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker
    ) -> Iterator[UnitReport | UnitFailure]:
        """See Executor."""
        num_workers, gpus_per_worker, cpus_per_worker = self._resources(len(units))
        actor_class = ray.remote(_Actor).options(
            num_cpus=cpus_per_worker,
            num_gpus=gpus_per_worker,
            max_concurrency=self._config.units_in_flight,
            max_restarts=0,
            max_task_retries=0,
        )

        def start() -> _Slot:
            actor = actor_class.remote()
            return _Slot(actor, actor.start.remote(make_worker))

        waiting = UnitQueue(units, self._config.max_attempts)
        self._slots = [start() for _ in range(num_workers)]
        num_start_failures = 0
        while len(waiting) or any(slot.in_flight for slot in self._slots):
            for slot in self._slots:
                self._fill(slot, waiting)
            for slot, done in self._next_done():
                if done == slot.starting:
                    start_error = self._start_failure(done)
                    if start_error is None:
                        slot.is_ready = True
                        num_start_failures = 0
                        continue
                    num_start_failures += 1
                    if num_start_failures < _MAX_START_FAILURES:
                        self._replace(slot, start)
                    elif any(other.is_ready for other in self._slots):
                        self._slots.remove(slot)
                    else:
                        raise start_error
                    continue
                unit = slot.in_flight.pop(done)
                try:
                    yield ray.get(done)
                except RayActorError as error:
                    yield from self._crashed(slot, unit, str(error), waiting)
                    self._replace(slot, start)
                except RayTaskError as error:
                    cause = error.cause if isinstance(error.cause, Exception) else error
                    text = f"{type(cause).__name__}: {cause}"
                    if isinstance(cause, EngineDead):
                        yield from self._crashed(slot, unit, text, waiting)
                        self._replace(slot, start)
                    elif failure := waiting.failed(unit, text):
                        yield failure

    def _resources(self, num_units: int) -> tuple[int, float, float]:
        """Decide the number of workers, and GPUs and CPUs per worker."""
        cluster = ray.cluster_resources()
        num_gpus, num_cpus = cluster.get("GPU", 0), cluster.get("CPU", 0)
        gpus_per_worker = self._config.gpus_per_worker
        if gpus_per_worker is None:
            gpus_per_worker = self._tensor_parallel_size if num_gpus and not self._is_fake else 0
        if gpus_per_worker > num_gpus:
            raise ConfigError(
                f"a worker needs {gpus_per_worker:g} GPUs, but the cluster has {num_gpus:g}. "
                "Set executor.gpus_per_worker or engine.tensor_parallel_size."
            )
        num_workers = self._config.num_workers
        if num_workers is None:
            num_workers = math.floor(num_gpus / gpus_per_worker) if gpus_per_worker else 1
        num_workers = min(num_workers, num_units)
        cpus_per_worker = self._config.cpus_per_worker
        if cpus_per_worker is None:
            even_share = max(1, math.floor(num_cpus / num_workers))
            cpus_per_worker = 1 if gpus_per_worker or self._is_fake else even_share
        return num_workers, gpus_per_worker, cpus_per_worker

    def _fill(self, slot: _Slot, waiting: UnitQueue) -> None:
        while slot.is_ready and len(slot.in_flight) < self._config.units_in_flight:
            if any(waiting.is_suspect(unit) for unit in slot.in_flight.values()):
                return
            unit = waiting.take(alone=not slot.in_flight)
            if unit is None:
                return
            slot.in_flight[slot.actor.run.remote(unit)] = unit

    def _next_done(self) -> list[tuple[_Slot, Any]]:
        """Wait a little for results; an empty list lets the caller look at signals and queues."""
        owners = {ref: slot for slot in self._slots for ref in slot.in_flight}
        owners |= {slot.starting: slot for slot in self._slots if not slot.is_ready}
        done, _ = ray.wait(list(owners), num_returns=1, timeout=_WAIT_SECONDS)
        return [(owners[ref], ref) for ref in done]

    def _start_failure(self, ref: Any) -> RgptBatchError | None:
        try:
            ray.get(ref)
        except RayTaskError as error:
            if isinstance(error.cause, RgptBatchError):
                return error.cause
            return EngineStartError(f"a worker cannot start: {error}")
        except RayError as error:
            return EngineStartError(f"a worker died while it started: {error}")
        return None

    def _crashed(
        self, slot: _Slot, unit: WorkUnit, cause: str, waiting: UnitQueue
    ) -> Iterator[UnitFailure]:
        """Take back all that a dead worker had in flight."""
        for lost in (unit, *slot.in_flight.values()):
            if failure := waiting.failed(lost, cause, crashed=True):
                yield failure
        slot.in_flight.clear()

    def _replace(self, slot: _Slot, start: Any) -> None:
        ray.kill(slot.actor)
        self._slots[self._slots.index(slot)] = start()
