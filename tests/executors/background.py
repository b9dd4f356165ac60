"""An executor that runs while the test does something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rgpt_batch.executors.base import Executor, MakeWorker
from rgpt_batch.output.claims import Claims
from rgpt_batch.records import UnitFailure, UnitReport, WorkUnit
from tests.executors.workers import DEADLINE_SECONDS


@contextmanager
def in_background(
    executor: Executor,
    units: Sequence[WorkUnit],
    make_worker: MakeWorker,
    claims: Claims | None = None,
) -> Iterator[list[UnitReport | UnitFailure]]:
    """Run while the test does something else; yields the list to which the outcomes come."""
    outcomes: list[UnitReport | UnitFailure] = []
    errors: list[Exception] = []

    def score() -> None:
        try:
            with executor:
                outcomes.extend(executor.run(units, make_worker, claims))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=score)
    thread.start()
    yield outcomes
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive() and not errors, errors


def wait_for_outcomes(
    executor: Executor, outcomes: list[UnitReport | UnitFailure], number: int
) -> None:
    """A node may go only after this: a unit that ended on it is lost while its outcome travels."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(outcomes) < number:
        assert time.monotonic() < deadline, executor.activity
        time.sleep(0.02)


def wait_for_activity(executor: Executor, activity: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while executor.activity != activity:
        assert time.monotonic() < deadline, executor.activity
        time.sleep(0.02)
