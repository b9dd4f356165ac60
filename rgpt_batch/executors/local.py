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
from rgpt_batch.executors.base import MakeWorker, UnitQueue, Worker
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit


class LocalExecutor:
    """See Executor. As many threads as units may be in flight; all share one engine."""

    def __init__(self, config: ExecutorConfig) -> None:
        if (config.num_workers or 1) > 1:
            raise ConfigError(
                f"executor.num_workers is {config.num_workers}, but the local executor runs one "
                "worker. Set executor.kind=ray."
            )
        self._config = config
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

    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker
    ) -> Iterator[UnitReport | UnitFailure]:
        """See Executor."""
        worker = make_worker(f"local-{os.getpid()}")
        waiting = UnitQueue(units, self._config.max_attempts)
        outcomes: queue.SimpleQueue[tuple[WorkUnit, UnitReport | Exception]] = queue.SimpleQueue()
        work: queue.SimpleQueue[WorkUnit | None] = queue.SimpleQueue()
        # Daemons: an interrupted job does not wait for a step that may take a minute.
        threads = [
            threading.Thread(target=self._work, args=(worker, work, outcomes), daemon=True)
            for _ in range(self._config.units_in_flight)
        ]
        for thread in threads:
            thread.start()
        num_in_flight = 0
        while len(waiting) or num_in_flight:
            while num_in_flight < self._config.units_in_flight:
                unit = waiting.take(alone=num_in_flight == 0)
                if unit is None:
                    break
                work.put(unit)
                num_in_flight += 1
            unit, outcome = outcomes.get()
            num_in_flight -= 1
            if isinstance(outcome, UnitReport):
                yield outcome
            elif isinstance(outcome, EngineDead):
                raise outcome
            elif failure := waiting.failed(unit, f"{type(outcome).__name__}: {outcome}"):
                yield failure
        for _ in threads:
            work.put(None)
        worker.close()

    def _work(
        self,
        worker: Worker,
        work: queue.SimpleQueue[WorkUnit | None],
        outcomes: queue.SimpleQueue[tuple[WorkUnit, UnitReport | Exception]],
    ) -> None:
        while (unit := work.get()) is not None and not self._stopping.is_set():
            try:
                outcomes.put((unit, worker.run(unit)))
            except Exception as error:
                outcomes.put((unit, error))
