"""One worker in this process, without Ray."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from rgpt_batch.config import ExecutorConfig
from rgpt_batch.errors import ConfigError, EngineDead
from rgpt_batch.executors.base import MakeWorker, UnitQueue, Worker, run_unit, start_worker
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit

_Work = queue.SimpleQueue[WorkUnit | None]
_Outcomes = queue.SimpleQueue[tuple[WorkUnit, UnitReport | Exception]]


class LocalExecutor:
    """See Executor. As many threads as units may be in flight; all share one engine."""

    def __init__(self, config: ExecutorConfig) -> None:
        if (config.num_workers or 1) > 1:
            raise ConfigError(
                f"executor.num_workers is {config.num_workers}, but the local executor runs one "
                "worker. Set executor.kind=ray."
            )
        self.activity = "starting the engine"
        self._config = config
        self._work: _Work = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for _ in self._threads:
            self._work.put(None)

    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker
    ) -> Iterator[UnitReport | UnitFailure]:
        """See Executor."""
        worker = start_worker(make_worker, f"local-{os.getpid()}")
        self.activity = "scoring"
        waiting = UnitQueue(units, self._config.max_attempts)
        outcomes: _Outcomes = queue.SimpleQueue()
        # Daemons: an interrupted job does not wait for a step that may take a minute.
        self._threads = [
            threading.Thread(target=self._run_units, args=(worker, outcomes), daemon=True)
            for _ in range(self._config.units_in_flight)
        ]
        for thread in self._threads:
            thread.start()
        num_in_flight = 0
        while len(waiting) or num_in_flight:
            while num_in_flight < self._config.units_in_flight:
                unit = waiting.take(alone=num_in_flight == 0)
                if unit is None:
                    break
                self._work.put(unit)
                num_in_flight += 1
            unit, outcome = outcomes.get()
            num_in_flight -= 1
            if isinstance(outcome, UnitReport):
                waiting.done()
                yield waiting.with_attempts(outcome)
            elif isinstance(outcome, EngineDead):
                raise EngineDead(
                    f"{outcome} (unit {unit.unit_id}). The local executor cannot start another "
                    "engine; --executor ray does, and leaves out a unit that kills it."
                ) from outcome
            elif failure := waiting.failed(unit, outcome):
                yield failure
        worker.close()

    def _run_units(self, worker: Worker, outcomes: _Outcomes) -> None:
        while (unit := self._work.get()) is not None and not self._stopping.is_set():
            try:
                outcomes.put((unit, run_unit(worker, unit)))
            except Exception as error:
                outcomes.put((unit, error))
            except BaseException as error:
                # In a thread, SystemExit would end the thread alone, and the job would wait on.
                outcomes.put((unit, EngineDead(f"{type(error).__name__}: {error}")))
