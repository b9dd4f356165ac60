"""Workers as Ray actors. The only module that imports Ray.

The driver hands out units; actors read, score and commit them. Rows never pass through Ray's object
store. Why not Ray Data: docs/adr/0003-ray-core-loop.md.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rgpt_batch.config import JobConfig
from rgpt_batch.errors import (
    ConfigError,
    EngineDead,
    EngineStartError,
    Interrupted,
    RgptBatchError,
)
from rgpt_batch.executors.base import MakeWorker, UnitQueue, Worker, run_unit, start_worker
from rgpt_batch.progress import format_count
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

    def run(self, unit: WorkUnit) -> UnitReport:
        """Bring one unit from reading to commit."""
        assert self._worker is not None, "start() comes first"
        return run_unit(self._worker, unit)


@dataclass
class _Slot:
    """A worker as the driver sees it.

    Attributes:
        placed: Done as soon as Ray has found a place for the actor.
        starting: Done when the engine is loaded.
    """

    actor: Any
    placed: Any
    starting: Any
    in_flight: dict[Any, WorkUnit] = field(default_factory=dict)
    is_ready: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resources:
    num_workers: int
    gpus: float
    cpus: float

    def __str__(self) -> str:
        cpus = format_count(self.cpus, "CPU")
        return f"{format_count(self.gpus, 'GPU')} and {cpus}" if self.gpus else cpus


class RayExecutor:
    """See Executor."""

    def __init__(self, config: JobConfig) -> None:
        self.activity = "starting or joining Ray"
        self._config = config.executor
        self._tensor_parallel_size = config.engine.tensor_parallel_size
        self._is_fake = config.engine.method == "fake"
        self._slots: list[_Slot] = []
        self._num_start_failures = 0
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

    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker
    ) -> Iterator[UnitReport | UnitFailure]:
        """See Executor."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        resources = self._resources(nodes, len(units))
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
                    yield from self._after_unit(slot, ref, waiting, start)

    def _resources(self, nodes: Sequence[dict[str, float]], num_units: int) -> _Resources:
        """Decide the number of workers, and GPUs and CPUs per worker."""
        gpus = self._config.gpus_per_worker
        if gpus is None:
            has_gpus = any(node.get("GPU") for node in nodes)
            gpus = self._tensor_parallel_size if has_gpus and not self._is_fake else 0
        if gpus > 1 and gpus != int(gpus):
            raise ConfigError(
                f"executor.gpus_per_worker is {gpus:g}: above 1, Ray takes whole numbers only."
            )
        cpus = self._config.cpus_per_worker
        num_workers = self._config.num_workers
        if num_workers is None:
            num_workers = _num_fitting(nodes, gpus, 1 if cpus is None else cpus) if gpus else 1
        num_workers = max(1, min(num_workers, num_units))
        if cpus is None:
            cpus = 1 if gpus or self._is_fake else _even_share(nodes, num_workers)
        resources = _Resources(num_workers=num_workers, gpus=gpus, cpus=cpus)
        if not _num_fitting(nodes, gpus, cpus):
            sizes = {(node.get("GPU", 0), node.get("CPU", 0)) for node in nodes}
            found = ", ".join(
                f"{format_count(g, 'GPU')} and {format_count(c, 'CPU')}"
                for g, c in sorted(sizes, reverse=True)
            )
            raise ConfigError(
                f"a worker needs {resources} on one node, but the cluster's nodes have {found}. "
                "Set executor.cpus_per_worker, executor.gpus_per_worker or "
                "engine.tensor_parallel_size."
            )
        return resources

    def _fill(self, waiting: UnitQueue) -> None:
        """Hand out units, to each worker no more than its share of what is left."""
        num_left = len(waiting) + sum(len(slot.in_flight) for slot in self._slots)
        share = math.ceil(num_left / len(self._slots))
        for slot in self._slots:
            while slot.is_ready and len(slot.in_flight) < min(share, self._config.units_in_flight):
                if any(waiting.is_suspect(unit) for unit in slot.in_flight.values()):
                    break
                unit = waiting.take(alone=not slot.in_flight)
                if unit is None:
                    break
                slot.in_flight[slot.actor.run.remote(unit)] = unit

    def _describe_activity(self, resources: _Resources) -> str:
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
            self._num_start_failures += 1
            cause = _cause(error)
            if isinstance(cause, EngineDead):
                cause = EngineStartError(f"a worker died while it started: {cause}")
            if not isinstance(cause, EngineStartError):
                raise cause from error
            if self._num_start_failures < _MAX_START_FAILURES:
                self._replace(slot, start)
            elif any(other.is_ready for other in self._slots):
                self._remove(slot)
            else:
                raise cause from error
        else:
            slot.is_ready = True
            self._num_start_failures = 0

    def _after_unit(
        self, slot: _Slot, ref: Any, waiting: UnitQueue, start: Callable[[], _Slot]
    ) -> Iterator[UnitReport | UnitFailure]:
        try:
            report = ray.get(ref)
        except RayError as error:
            cause = _cause(error)
            if isinstance(cause, EngineDead):
                lost = list(slot.in_flight.values())
                blame = not (isinstance(error, RayActorError) and error.preempted)
                slot.in_flight.clear()
                failures = waiting.crashed(lost, cause, blame=blame)
                if len(waiting):
                    self._replace(slot, start)
                else:
                    self._remove(slot)
                yield from failures
            elif failure := waiting.failed(slot.in_flight.pop(ref), cause):
                yield failure
        else:
            del slot.in_flight[ref]
            waiting.done()
            yield waiting.with_attempts(report)

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


def _num_fitting(nodes: Sequence[dict[str, float]], gpus: float, cpus: float) -> int:
    """Count the workers for which the nodes have room when nothing else runs."""
    wanted = {name: amount for name, amount in (("GPU", gpus), ("CPU", cpus)) if amount}
    if not wanted:
        return len(nodes) * 1000
    return sum(
        min(math.floor(node.get(name, 0) / amount) for name, amount in wanted.items())
        for node in nodes
    )


def _even_share(nodes: Sequence[dict[str, float]], num_workers: int) -> int:
    """Return the largest number of CPUs that so many workers can have at once; at least 1."""
    most = math.floor(max(node.get("CPU", 0) for node in nodes))
    shares = (cpus for cpus in range(most, 1, -1) if _num_fitting(nodes, 0, cpus) >= num_workers)
    return next(shares, 1)
