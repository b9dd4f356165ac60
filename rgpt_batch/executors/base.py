"""What executors and workers are, and how an executor calls a worker."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rgpt_batch.errors import EngineError, EngineStartError, RgptBatchError
from rgpt_batch.output.claims import Claims
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker is to do with a unit.

    Attributes:
        crashing_rows: Rows of the unit, counted from 0, that are known to kill an engine.
        probe: Score only these rows, to learn whether the engine survives, and commit nothing.
    """

    unit: WorkUnit
    crashing_rows: frozenset[int] = frozenset()
    probe: range | None = None


class Worker(Protocol):
    """Runs units, one at a time or several, each on a thread of its own."""

    def run(self, unit: WorkUnit, crashing_rows: frozenset[int]) -> UnitReport:
        """Read, score and commit one unit. The crashing rows are rejected instead of scored."""
        ...

    def probe(self, unit: WorkUnit) -> None:
        """Read and score a unit, and forget the scores."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


# What an executor does that has nothing to do, while others may leave units to it.
WAITING_FOR_OTHERS = "waiting for units that other processes are at"

# Is called in the process in which the worker will live, with the worker's name.
MakeWorker = Callable[[str], Worker]


class Executor(Protocol):
    """Brings units to workers. Entering it as a context connects; leaving it stops all workers.

    Attributes:
        activity: What the executor is doing now, in a few words; changes while run() goes on.
        log_name: Names the log of the process that the executor itself runs in.
        num_restarts: Workers that were started in the place of another.
    """

    activity: str
    log_name: str = "driver"
    num_restarts: int = 0

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def run(
        self, units: Sequence[WorkUnit], make_worker: MakeWorker, claims: Claims | None = None
    ) -> Iterator[UnitReport | UnitFailure]:
        """Yield one outcome per unit, as they come.

        Args:
            units: What to score.
            make_worker: Makes the workers.
            claims: Where other processes share the units: hands out those that are this one's.
                The units that others have done have no outcome here.

        Raises:
            ConfigError: The cluster can never run the workers that were asked for.
            EngineError: No worker starts, no node comes for one, or the only one died.
            RgptBatchError: Every unit fails; the last cause.
            StorageError, OSError: Nothing can be seen of the other processes.
        """
        ...


def start_worker(make_worker: MakeWorker, name: str) -> Worker:
    """Load an engine.

    Raises:
        RgptBatchError: What the worker raises; any other exception becomes EngineStartError.
    """
    try:
        return make_worker(name)
    except RgptBatchError:
        raise
    except Exception as error:
        raise EngineStartError(f"a worker cannot start: {describe(error)}") from error


def run_task(worker: Worker, task: Task) -> UnitReport | None:
    """Run one task; a probe gives no report.

    Raises:
        RgptBatchError: What the worker raises. Any other exception becomes EngineError, since
            its class may not be known in the executor's process.
    """
    try:
        if task.probe is None:
            return worker.run(task.unit, task.crashing_rows)
        worker.probe(task.unit.part(task.probe))
        return None
    except RgptBatchError:
        raise
    except Exception as error:
        raise EngineError(describe(error)) from error


def describe(error: Exception) -> str:
    """Say in one line what happened. For errors that are not ours, also say where."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, RgptBatchError) or error.__traceback__ is None:
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({os.path.basename(place.filename)}:{place.lineno})"
