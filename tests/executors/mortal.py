"""A real runner in a process that dies, or hangs, of certain documents."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import EngineDead
from rgpt_batch.executors.base import MakeWorker
from rgpt_batch.executors.local import LocalExecutor
from rgpt_batch.executors.unit_runner import UnitRunner
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.output import open_store
from rgpt_batch.output.begun import Begun
from rgpt_batch.records import ScorePair, UnitReport, WorkUnit
from tests.executors.workers import Journal, make_config

# What rows hold, by their numbers → units, make_worker, run_job, and the rows of a clean run.
PlanJob = Callable[[dict[int, str]], Any]


def run_to_death(units: Sequence[WorkUnit], make_worker: MakeWorker, output: str) -> None:
    """Score units as a job with the local executor does, in this process."""
    store = open_store(output)
    with (
        Begun(store, store.new_run_id()) as begun,
        LocalExecutor(make_config(kind="local").executor, begun) as executor,
    ):
        list(executor.run(units, make_worker))


class MortalWorker:
    """Scores with the configured engine, after a look at what it is about to score.

    A document that begins with SIGKILL kills the process, one with ENGINE-DEAD raises what a real
    engine raises that has died, one with RAISE what nobody expects, and one with HANG never ends.
    """

    def __init__(
        self,
        folder: Path,
        config: JobConfig,
        columns: Columns,
        fingerprint: str,
        output: str,
        name: str,
    ) -> None:
        self._journal = Journal(folder)
        self._journal.note("start", worker=name)
        self._columns = columns
        self._runner = UnitRunner(config, columns, fingerprint, output, name)

    def run(self, unit: WorkUnit, crashing_rows: frozenset[int]) -> UnitReport:
        self._journal.note("begin", unit.unit_id)
        self._meet(unit, crashing_rows)
        return self._runner.run(unit, crashing_rows)

    def probe(self, unit: WorkUnit) -> None:
        self._meet(unit, frozenset())
        self._runner.probe(unit)

    def close(self) -> None:
        self._runner.close()

    def _meet(self, unit: WorkUnit, crashing_rows: frozenset[int]) -> None:
        batches = read_pairs(unit, self._columns, source=False)
        pairs = [pair for batch in batches for pair in batch.pairs]
        for row, pair in enumerate(pairs):
            if row in crashing_rows or not isinstance(pair, ScorePair):
                continue
            match pair.document.split()[:1]:
                case ["SIGKILL"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                case ["ENGINE-DEAD"]:
                    raise EngineDead("vLLM failed: RuntimeError: scripted")
                case ["RAISE"]:
                    raise ValueError("scripted: the row cannot be scored")
                case ["HANG"]:
                    threading.Event().wait()
