"""One worker in this process, without Ray."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from typing_extensions import override

from rgpt_batch.config.executor import ExecutorConfig
from rgpt_batch.errors import ConfigError, EngineDead
from rgpt_batch.executors.base import (
    WAITING_FOR_OTHERS,
    Executor,
    MakeWorker,
    Task,
    Worker,
    run_task,
    start_worker,
)
from rgpt_batch.executors.patience import Patience
from rgpt_batch.executors.unit_queue import UnitQueue
from rgpt_batch.output.begun import Begun
from rgpt_batch.output.claims import Claims
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit

_WAIT_SECONDS = 0.2

_Work = queue.SimpleQueue[Task | None]
_Outcomes = queue.SimpleQueue[tuple[Task, UnitReport | Exception | None]]

_NO_SECOND_ENGINE = (
    "The local executor cannot start another engine; --executor ray does, and leaves out the rows "
    "that kill it."
)


class LocalExecutor(Executor):
    """Runs one engine. Each unit in flight has a thread of its own; all share the engine."""

    def __init__(self, config: ExecutorConfig, begun: Begun | None = None) -> None:
        if config.least_workers > 1:
            name = "num_workers" if config.num_workers else "min_workers"
            raise ConfigError(
                f"executor.{name} is {config.least_workers}, but the local executor runs one "
                "worker. Set executor.kind=ray."
            )
        self.activity = "starting the engine"
        self.log_name = f"local-{os.getpid()}"
        self._config = config
        self._begun = begun
        self._work: _Work = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    @override
    def __enter__(self) -> Self:
        return self

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for _ in self._threads:
            self._work.put(None)

    @override
    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker, claims: Claims | None = None
    ) -> Iterator[UnitReport | UnitFailure]:
        worker = start_worker(make_worker, self.log_name)
        self.activity = "scoring"
        waiting = UnitQueue(units, self._config.max_attempts, claims, self._begun)
        outcomes: _Outcomes = queue.SimpleQueue()
        # Daemon threads, since an interrupted job must not wait for a step that takes a minute.
        self._threads = [
            threading.Thread(target=self._run_tasks, args=(worker, outcomes), daemon=True)
            for _ in range(self._config.units_in_flight)
        ]
        for thread in self._threads:
            thread.start()
        patience = Patience(self._config.unit_timeout_seconds)
        in_flight: list[Task] = []
        while waiting.has_more or in_flight:
            most = min(waiting.share(len(in_flight), 1), self._config.units_in_flight)
            while len(in_flight) < most:
                task = waiting.take(alone=not in_flight)
                if task is None:
                    break
                self._work.put(task)
                in_flight.append(task)
            self.activity = "scoring" if in_flight else WAITING_FOR_OTHERS
            if not in_flight:
                time.sleep(_WAIT_SECONDS)
                continue
            task, outcome = self._next_outcome(outcomes, in_flight, patience)
            in_flight.remove(task)
            if outcome is None:
                waiting.done(task)
            elif isinstance(outcome, UnitReport):
                waiting.done(task)
                patience.learn(task.unit, outcome)
                yield waiting.with_attempts(outcome)
            elif isinstance(outcome, EngineDead):
                raise EngineDead(
                    f"{outcome} (unit {task.unit.unit_id}). {_NO_SECOND_ENGINE}"
                ) from outcome
            elif failure := waiting.failed(task, outcome):
                yield failure
        worker.close()

    def _next_outcome(
        self, outcomes: _Outcomes, in_flight: Sequence[Task], patience: Patience
    ) -> tuple[Task, UnitReport | Exception | None]:
        seconds = patience.seconds(task.unit for task in in_flight)
        try:
            return outcomes.get(timeout=seconds)
        except queue.Empty:
            unit_ids = ", ".join(task.unit.unit_id for task in in_flight)
            raise EngineDead(
                f"the engine hangs: none of the units in flight ({unit_ids}) was done within "
                f"{seconds:.0f} s, see executor.unit_timeout_seconds. {_NO_SECOND_ENGINE}"
            ) from None

    def _run_tasks(self, worker: Worker, outcomes: _Outcomes) -> None:
        while (task := self._work.get()) is not None and not self._stopping.is_set():
            try:
                outcomes.put((task, run_task(worker, task)))
            except Exception as error:
                outcomes.put((task, error))
            except BaseException as error:
                # SystemExit would end only this thread, and the job would wait for it forever.
                outcomes.put((task, EngineDead(f"{type(error).__name__}: {error}")))
