"""Workers as Ray actors. The only module that imports Ray.

The driver hands out units; actors read, score and commit them. Rows never pass through Ray's object
store. Why not Ray Data: docs/adr/0003-ray-core-loop.md.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import EngineDead, EngineStartError, Interrupted, RgptBatchError
from rgpt_batch.executors.base import Executor, MakeWorker, Task, Worker, run_task, start_worker
from rgpt_batch.executors.patience import Patience
from rgpt_batch.executors.resources import WorkerResources, fit_workers
from rgpt_batch.executors.unit_queue import UnitQueue
from rgpt_batch.formatting import format_count
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
        name = f"{ray.util.get_node_ip_address()}-{os.getpid()}"
        self._worker = start_worker(make_worker, name)

    def run(self, task: Task) -> UnitReport | None:
        """Run one task."""
        assert self._worker is not None, "start() comes first"
        return run_task(self._worker, task)


@dataclass
class _Slot:
    """A worker as the driver sees it.

    Attributes:
        placed: Done as soon as Ray has found a place for the actor.
        starting: Done when the engine is loaded.
        loading_since: When the driver saw that the actor was placed.
        silent_since: When the worker finished a task, or was handed one while it had none.
    """

    actor: Any
    placed: Any
    starting: Any
    in_flight: dict[Any, Task] = field(default_factory=dict)
    is_ready: bool = False
    loading_since: float | None = None
    silent_since: float = 0.0


class RayExecutor(Executor):
    """Runs one actor for each worker, on the nodes of a Ray cluster."""

    def __init__(self, config: JobConfig) -> None:
        self.activity = "starting or joining Ray"
        self._job_config = config
        self._config = config.executor
        self._slots: list[_Slot] = []
        self._num_start_failures = 0
        self._patience = Patience(config.executor.unit_timeout_seconds)
        self._owns_ray = False

    def __enter__(self) -> Self:
        if ray.is_initialized():
            return self
        self._owns_ray = True
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            # Joins the cluster that RAY_ADDRESS names or that runs here, else starts one.
            ray.init(logging_level="ERROR", log_to_driver=False, include_dashboard=False)
        except BaseException as error:
            ray.shutdown()
            if isinstance(error, SystemExit):
                # This is what the handler does that Ray puts in the place of the job's.
                raise Interrupted(signal.SIGTERM) from error
            if isinstance(error, Exception):
                raise EngineStartError(
                    f"cannot start or join a Ray cluster: {error}. Check RAY_ADDRESS "
                    f"({os.environ.get('RAY_ADDRESS', 'not set')}); RAY_ADDRESS=local starts a "
                    "cluster on this machine."
                ) from error
            raise
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm or signal.SIG_DFL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for slot in self._slots:
                ray.kill(slot.actor)
        finally:
            if self._owns_ray:
                ray.shutdown()

    @override
    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker
    ) -> Iterator[UnitReport | UnitFailure]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        resources = fit_workers(self._job_config, nodes, len(units))
        actor_class = ray.remote(_Actor).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_concurrency=self._config.units_in_flight,
            max_restarts=0,
            max_task_retries=0,
        )

        def start() -> _Slot:
            actor = actor_class.remote()
            return _Slot(actor, actor.__ray_ready__.remote(), actor.start.remote(make_worker))

        waiting = UnitQueue(units, self._config.max_attempts)
        self._slots = [start() for _ in range(resources.num_workers)]
        while len(waiting) or any(slot.in_flight for slot in self._slots):
            self._fill(waiting)
            self.activity = self._describe_activity(resources)
            for slot, ref in self._next_done():
                if ref == slot.starting:
                    self._after_start(slot, start)
                else:
                    yield from self._after_task(slot, ref, waiting, start)
            self._end_hung_starts(start)
            yield from self._end_hung_workers(waiting, start)

    def _fill(self, waiting: UnitQueue) -> None:
        """Hand out units, to each worker no more than its share of what is left."""
        num_left = len(waiting) + sum(len(slot.in_flight) for slot in self._slots)
        share = math.ceil(num_left / len(self._slots))
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

    def _describe_activity(self, resources: WorkerResources) -> str:
        num_ready = sum(slot.is_ready for slot in self._slots)
        workers = format_count(len(self._slots), "worker")
        if num_ready == len(self._slots):
            return f"scoring on {workers}"
        if num_ready:
            return f"scoring on {num_ready} of {workers}"
        placed, _ = ray.wait([slot.placed for slot in self._slots], timeout=0)
        if placed:
            return f"starting {workers}"
        return f"waiting until Ray has {resources} free for a worker"

    def _next_done(self) -> list[tuple[_Slot, Any]]:
        """Wait a little for results; an empty list lets the caller look at signals and queues."""
        owners = {ref: slot for slot in self._slots for ref in slot.in_flight}
        owners |= {slot.starting: slot for slot in self._slots if not slot.is_ready}
        done, _ = ray.wait(list(owners), num_returns=1, timeout=_WAIT_SECONDS)
        return [(owners[ref], ref) for ref in done]

    def _after_start(self, slot: _Slot, start: Callable[[], _Slot]) -> None:
        try:
            ray.get(slot.starting)
        except RayError as error:
            cause = _cause(error)
            if isinstance(cause, EngineDead):
                cause = EngineStartError(f"a worker died while it started: {cause}")
            if not isinstance(cause, EngineStartError):
                raise cause from error
            self._after_failed_start(slot, cause, start)
        else:
            slot.is_ready = True
            self._num_start_failures = 0

    def _after_failed_start(
        self, slot: _Slot, cause: EngineStartError, start: Callable[[], _Slot]
    ) -> None:
        self._num_start_failures += 1
        if self._num_start_failures < _MAX_START_FAILURES:
            self._replace(slot, start)
        elif any(other.is_ready for other in self._slots):
            self._remove(slot)
        else:
            raise cause

    def _end_hung_starts(self, start: Callable[[], _Slot]) -> None:
        limit = self._config.start_timeout_seconds
        for slot in [slot for slot in self._slots if not slot.is_ready]:
            if slot.loading_since is None:
                # While others hold the resources, a worker may wait as long as it takes.
                placed, _ = ray.wait([slot.placed], timeout=0)
                slot.loading_since = time.monotonic() if placed else None
            elif time.monotonic() - slot.loading_since > limit:
                cause = EngineStartError(
                    f"a worker's engine was not loaded within {limit:g} s. Raise "
                    "executor.start_timeout_seconds if it needs longer."
                )
                self._after_failed_start(slot, cause, start)

    def _after_task(
        self, slot: _Slot, ref: Any, waiting: UnitQueue, start: Callable[[], _Slot]
    ) -> Iterator[UnitReport | UnitFailure]:
        try:
            report = ray.get(ref)
        except RayError as error:
            cause = _cause(error)
            if isinstance(cause, EngineDead):
                blame = not (isinstance(error, RayActorError) and error.preempted)
                yield from self._after_crash(slot, cause, waiting, start, blame=blame)
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

    def _end_hung_workers(
        self, waiting: UnitQueue, start: Callable[[], _Slot]
    ) -> Iterator[UnitFailure]:
        for slot in [slot for slot in self._slots if slot.in_flight]:
            limit = self._patience.seconds(task.unit for task in slot.in_flight.values())
            if time.monotonic() - slot.silent_since > limit:
                cause = EngineDead(
                    f"the worker hung: no unit was done within {limit:.0f} s, see "
                    "executor.unit_timeout_seconds"
                )
                yield from self._after_crash(slot, cause, waiting, start)

    def _after_crash(
        self,
        slot: _Slot,
        cause: EngineDead,
        waiting: UnitQueue,
        start: Callable[[], _Slot],
        *,
        blame: bool = True,
    ) -> list[UnitFailure]:
        failures = waiting.crashed(list(slot.in_flight.values()), cause, blame=blame)
        slot.in_flight.clear()
        if len(waiting):
            self._replace(slot, start)
        else:
            self._remove(slot)
        return failures

    def _replace(self, slot: _Slot, start: Callable[[], _Slot]) -> None:
        ray.kill(slot.actor)
        self._slots[self._slots.index(slot)] = start()

    def _remove(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        self._slots.remove(slot)


def _cause(error: RayError) -> RgptBatchError:
    """Return what a worker raised; EngineDead where its process is gone."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, RgptBatchError):
        return error.cause
    # The last line of Ray's message says how, after the actor's class and ids.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    detail = lines[-1].rpartition("Worker exit detail: ")[2]
    return EngineDead(f"the worker's process died: {detail}")
