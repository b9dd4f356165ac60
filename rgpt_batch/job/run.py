"""One run of a job: what it did, whether the output is now complete, and the record it leaves."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from rgpt_batch.checks.parity import Parity
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import CommitError, StorageError
from rgpt_batch.job.progress import Tally
from rgpt_batch.output import Store
from rgpt_batch.output.claims import Claims
from rgpt_batch.output.success import Success
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.planning.versions import installed_versions
from rgpt_batch.records import UnitFailure, UnitReport
from rgpt_batch.reuse.earlier import EarlierScores

EXIT_COMPLETE = 0
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """How a run of a job ended.

    Attributes:
        num_rows_before: Rows that earlier runs had committed.
        num_rows_scored: Rows that this run committed, rejected ones included.
        num_rows_by_others: Rows that other runs committed while this one was at work.
        num_rejected: Rejected rows of the whole output, per reason.
        num_reused: Rows of the whole output whose score was copied from an earlier job.
        parity: How far the engine is from the reference; None where that was not asked for.
        problems: Why exit_code is not 0, one sentence each.
        engine_busy_fraction: See EngineTime.busy_fraction.
        engines: Methods that scored in this run.
        passed_over: Why faster methods did not, a sentence each.
    """

    output: str
    exit_code: int
    num_units: int
    num_rows: int
    num_rows_before: int
    num_rows_scored: int
    num_rows_by_others: int
    num_rejected: dict[str, int]
    num_reused: int
    num_truncated_rows: int
    num_prompt_tokens: int
    seconds: float
    pairs_per_second: float
    engine_busy_fraction: float
    engines: tuple[str, ...]
    passed_over: tuple[str, ...]
    parity: Parity | None
    failures: tuple[UnitFailure, ...]
    problems: tuple[str, ...]


class SignOfLife(BaseModel):
    """What a process says of itself while it shares the job with others (`score --join`).

    Attributes:
        updated_at: When it said so, seconds since the epoch by its own clock.
        num_rows: Rows that it has committed.
    """

    host: str
    pid: int
    activity: str
    updated_at: float
    num_units: int
    num_rows: int
    pairs_per_second: float

    @property
    def name(self) -> str:
        """Its machine and the number of its process there."""
        return f"{self.host}-{self.pid}"


class Run:
    """One run of the command, and the record that it leaves.

    Args:
        before: Ids of the units that are committed when it begins.
        warn: Is told of records that cannot be written: scores do not depend on them.

    Attributes:
        run_id: Names its record and its logs.
        activity: Tells what it is doing, in a few words.
        output: What the published files come to; None until the run is finished.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        config: JobConfig,
        tally: Tally,
        before: Set[str],
        warn: Callable[[str], None],
        earlier: EarlierScores | None = None,
    ) -> None:
        self.store = store
        self.manifest = manifest
        self.config = config
        self.tally = tally
        self.earlier = earlier
        self.parity: Parity | None = None
        self.output: Success | None = None
        self.reports: list[UnitReport] = []
        self.failures: list[UnitFailure] = []
        self.activity: Callable[[], str] = lambda: "starting"
        self.started = time.monotonic()
        self._before = before
        self._mine: set[str] = set()
        self._num_rows = {unit.unit_id: unit.num_rows for unit in manifest.scored_units}
        self._warn = warn
        self._started_at = time.time()
        self.run_id = store.new_run_id()

    def open(self, *, has_work: bool) -> None:
        """Write a record for the case that this process has no time to write another one.

        Raises:
            CommitError: There is work, and nothing can be written: it would be in vain.
        """
        with nullcontext() if has_work else self._only_a_record():
            self._write("running", {"units": []})

    def add(self, outcome: UnitReport | UnitFailure) -> None:
        """Note the outcome of one unit."""
        if isinstance(outcome, UnitReport):
            self.reports.append(outcome)
            if outcome.committed:
                self._mine.add(outcome.unit_id)
            # Where all others are at work, these are many: they are not gone through for each unit.
            if outcome.committed == (outcome.unit_id in self.tally.elsewhere):
                self.see(self.tally.elsewhere.keys() | {outcome.unit_id})
        else:
            self.failures.append(outcome)
            with self._only_a_record():
                self.store.add_failure(outcome)

    def see(self, unit_ids: Set[str]) -> None:
        """Note which units are committed: those that are not this run's are another one's."""
        others = unit_ids - self._before - self._mine
        self.tally.elsewhere = {u: n for u in others if (n := self._num_rows.get(u)) is not None}

    def claims(self) -> Claims:
        """Return what shares the units with other processes."""
        seconds = self.config.executor.join_timeout_seconds
        return Claims(
            self.store, self.run_id, seconds, lambda: self.sign_of_life().model_dump(), self.see
        )

    def sign_of_life(self) -> SignOfLife:
        """Say what this process does."""
        done = self.tally.done
        return SignOfLife(
            host=socket.gethostname(),
            pid=os.getpid(),
            activity=self.activity(),
            updated_at=time.time(),
            num_units=done.num_units - done.num_duplicates,
            num_rows=done.num_rows_committed,
            pairs_per_second=round(self.tally.rates()[0], 2),
        )

    def note_committed(self, unit_ids: Iterable[str]) -> None:
        """Note what is published, whoever did it: no such unit is a failed one."""
        with self._only_a_record():
            self.store.drop_failures(unit_ids)

    def close(self, state: str, ending: dict[str, Any]) -> None:
        """Write the final status and the record of the run."""
        status = self.tally.status(state)
        if self.output is not None:
            # Of all runs, not of this one alone.
            status["num_rejected"] = self.output.num_rejected
        with self._only_a_record():
            self.store.write_status(status)
        units = [asdict(report) for report in self.reports]
        with self._only_a_record():
            self._write(state, {"finished_at": time.time(), **ending, "units": units})

    @contextmanager
    def _only_a_record(self) -> Iterator[None]:
        """Go on where a record cannot be written."""
        try:
            yield
        except (CommitError, StorageError, OSError) as error:
            self._warn(f"warning: a record is missing: {error}")

    def _write(self, state: str, facts: dict[str, Any]) -> None:
        self.store.write_run(
            self.run_id,
            {
                "run_id": self.run_id,
                "state": state,
                "fingerprint": self.manifest.fingerprint,
                "started_at": self._started_at,
                "config": self.config.model_dump(mode="json"),
                "versions": installed_versions(),
                "reuse": None if self.earlier is None else self.earlier.record(),
                "parity": None if self.parity is None else asdict(self.parity),
                **facts,
            },
        )
