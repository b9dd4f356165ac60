"""A worker as a Ray actor, and as the driver sees it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from rgpt_batch.errors import EngineDead, EngineStartError, RgptBatchError
from rgpt_batch.executors.base import MakeWorker, Task, Worker, run_task, start_worker
from rgpt_batch.executors.places import Place
from rgpt_batch.executors.process_log import ProcessLog, RunLogs
from rgpt_batch.executors.resources import Node
from rgpt_batch.records import UnitReport

_SILENCE_SECONDS = 5.0

_ErrorT = TypeVar("_ErrorT", bound=Exception)
_logger = logging.getLogger(__name__)


class WorkerActor:
    """Holds the worker in a process of its own."""

    def __init__(self, logs: RunLogs | None) -> None:
        self._worker: Worker | None = None
        self._name = f"{ray.util.get_node_ip_address()}-{os.getpid()}"
        self._log = logs.redirect(self._name) if logs else None

    def place(self) -> tuple[Place, ProcessLog | None]:
        """Tell where Ray has put the actor, and where the log of its process is."""
        context = ray.get_runtime_context()
        gpus = context.get_accelerator_ids().get("GPU", [])
        return Place(node_id=context.get_node_id(), gpus=tuple(gpus)), self._log

    def start(self, make_worker: MakeWorker) -> None:
        """Load the engine; a method, so that the driver sees the cause of a failure."""
        try:
            self._worker = start_worker(make_worker, self._name)
        except EngineStartError as error:
            # Here the log can be read wherever it is.
            raise _noted(error, self._log) from error

    def run(self, task: Task) -> UnitReport | None:
        """Run one task."""
        assert self._worker is not None, "start() comes first"
        return run_task(self._worker, task)


@dataclass(eq=False)
class Slot:
    """A worker as the driver sees it: first without a place, then loading, then ready.

    Attributes:
        placing: Done as soon as Ray has found a place for the actor.
        place: Known when that is done.
        log: The same; None where the process has none of ours.
        starting: Done when the engine is loaded; None before the actor has its place.
        loading_since: When the driver told the actor to load the engine.
        silent_since: When the worker finished a task, or was handed one while it had none.
    """

    actor: Any
    placing: Any
    place: Place | None = None
    log: ProcessLog | None = None
    starting: Any = None
    in_flight: dict[Any, Task] = field(default_factory=dict)
    is_ready: bool = False
    loading_since: float = 0.0
    silent_since: float = 0.0

    @property
    def awaited(self) -> list[Any]:
        """What the driver waits for."""
        if self.is_ready:
            return list(self.in_flight)
        return [self.placing if self.starting is None else self.starting]

    def noted(self, error: _ErrorT) -> _ErrorT:
        """Add to an error where the worker's log is, and what it ends with."""
        return _noted(error, self.log)


def _noted(error: _ErrorT, log: ProcessLog | None) -> _ErrorT:
    return error if log is None else log.noted(error)


def cause_of(error: RayError, log: ProcessLog | None = None) -> RgptBatchError:
    """Return what a worker raised; EngineDead where its process is gone.

    The last lines of a process that is gone are told at once: others may go on without it.
    """
    if isinstance(error, RayTaskError) and isinstance(error.cause, RgptBatchError):
        return error.cause
    # The last line of Ray's message says how, after the actor's class and ids.
    lines = str(error).strip().splitlines() or [type(error).__name__]
    detail = lines[-1].rpartition("Worker exit detail: ")[2]
    dead = EngineDead(f"the worker's process died: {detail}")
    if log is not None:
        _logger.warning("%s; %s", dead, log.note())
        dead = log.noted(EngineDead(f"{dead} Its log: {log}"))
    return dead


def start_error(error: RayError, log: ProcessLog | None = None) -> EngineStartError:
    """Return why an engine did not start; raise what no other start can mend."""
    cause = cause_of(error, log)
    if isinstance(cause, EngineDead):
        return _noted(EngineStartError(f"a worker died while it started: {cause}"), log)
    if not isinstance(cause, EngineStartError):
        raise cause from error
    return cause


def is_lost(error: RayError, slot: Slot) -> bool:
    """Whether a worker is gone because its machine is, by the error of a task that it had."""
    if isinstance(error, ActorUnavailableError):
        # The connection broke. If the process died, its node tells so in a moment. A machine that
        # is gone tells nothing, and Ray takes half a minute to give it up.
        answer = slot.actor.place.remote()
        if not ray.wait([answer], timeout=_SILENCE_SECONDS)[0]:
            return True
        try:
            ray.get(answer)
        except RayError as later:
            error = later
        else:
            return True
    is_silent = isinstance(error, ActorUnavailableError)
    is_preempted = isinstance(error, RayActorError) and error.preempted
    return is_silent or is_preempted or _node_is_gone(slot)


def _node_is_gone(slot: Slot) -> bool:
    return slot.place is not None and slot.place.node_id not in alive_nodes()


def alive_nodes() -> dict[str, Node]:
    """Return what each node of the cluster has, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
