"""How far a job is: a bar on a terminal, a line every ten seconds elsewhere, status.json always."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from rgpt_batch.errors import CommitError, Interrupted
from rgpt_batch.formatting import format_seconds
from rgpt_batch.job.terminal import Terminal
from rgpt_batch.job.totals import Totals
from rgpt_batch.output import Store
from rgpt_batch.records import UnitFailure, UnitReport

_LINE_SECONDS = 10.0


_STATUS_SECONDS = 2.0


@dataclass
class Tally:
    """Running totals of a job; those of earlier runs are in the `num_*_before` fields.

    Attributes:
        done: What this run has finished, whether another run was faster or not.
        elsewhere: Rows of the units that other runs have committed since this one began, by unit.
        is_reusing: Whether scores of an earlier job are copied where texts are the same.
    """

    num_units: int
    num_rows: int
    num_units_before: int = 0
    num_rows_before: int = 0
    is_reusing: bool = False
    done: Totals = field(default_factory=Totals)
    elsewhere: Mapping[str, int] = field(default_factory=dict)
    num_units_failed: int = 0
    num_rows_failed: int = 0
    # By the monotonic clock of this process: others may be set while the job runs.
    first_started: float | None = None
    last_finished: float | None = None

    def add(self, outcome: UnitReport | UnitFailure) -> None:
        """Count one finished unit."""
        if isinstance(outcome, UnitFailure):
            self.num_units_failed += 1
            self.num_rows_failed += outcome.num_rows
            return
        self.done.add(outcome)
        self.last_finished = time.monotonic()
        started = self.last_finished - (outcome.finished_at - outcome.started_at)
        self.first_started = min(self.first_started or started, started)

    @property
    def num_units_committed(self) -> int:
        """Units in the output, whoever has committed them."""
        mine = self.done.num_units - self.done.num_duplicates
        return self.num_units_before + mine + len(self.elsewhere)

    @property
    def num_rows_committed(self) -> int:
        """Rows in the output, whoever has committed them."""
        others = sum(self.elsewhere.values())
        return self.num_rows_before + self.done.num_rows_committed + others

    def rates(self) -> tuple[float, float, float | None]:
        """Return pairs per second, prompt tokens per second, and seconds to go if known.

        Pairs with a copied score do not count as speed, but shorten what is left.
        """
        if self.first_started is None or self.last_finished is None:
            return 0.0, 0.0, None
        num_left = max(0, self.num_rows - self.num_rows_committed - self.num_rows_failed)
        end = time.monotonic() if num_left else self.last_finished
        seconds = max(end - self.first_started, 1e-6)
        num_new = self.num_rows_committed - self.num_rows_before
        eta = num_left * seconds / num_new if num_new else None
        pairs_per_second = (self.done.num_rows - self.done.num_reused) / seconds
        return pairs_per_second, self.done.num_prompt_tokens / seconds, eta

    def status(self, state: str) -> dict[str, Any]:
        """Return what status.json holds."""
        pairs_per_second, tokens_per_second, eta = self.rates()
        return {
            "state": state,
            "updated_at": time.time(),
            "num_units": self.num_units,
            "num_units_committed": self.num_units_committed,
            "num_units_failed": self.num_units_failed,
            "num_rows": self.num_rows,
            "num_rows_committed": self.num_rows_committed,
            "num_rejected": dict(self.done.num_rejected),
            "num_reused": self.done.num_reused,
            "engines": sorted(self.done.engines),
            "pairs_per_second": round(pairs_per_second, 2),
            "prompt_tokens_per_second": round(tokens_per_second, 1),
            "eta_seconds": None if eta is None else round(eta),
        }


class Status(BaseModel):
    """What is read of status.json: what Tally.status gives, as this version or another wrote it.

    Attributes:
        activity: What the executor does, while the job runs.
        engines: Methods that have scored in the last run.
    """

    model_config = ConfigDict(extra="allow")

    state: str
    updated_at: float = 0.0
    activity: str = "at work"
    num_rejected: dict[str, int] = {}
    engines: tuple[str, ...] = ()
    pairs_per_second: float = 0.0
    eta_seconds: float | None = None


def _unit_line(outcome: UnitReport | UnitFailure) -> dict[str, Any]:
    """Say what became of a unit, for programs that read the lines."""
    facts = {"unit": outcome.unit_id, "rows": outcome.num_rows, "attempts": outcome.num_attempts}
    if isinstance(outcome, UnitFailure):
        return {"message": f"unit failed: {outcome.cause}", "level": "error", **facts}
    seconds = {
        "read_seconds": round(outcome.read_seconds, 3),
        "engine_seconds": round(outcome.engine_seconds, 3),
        "commit_seconds": round(outcome.commit_seconds, 3),
    }
    return {"message": "unit committed", **facts, "worker": outcome.worker, **seconds}


class ProgressDisplay:
    """Shows a tally while a job runs and keeps status.json fresh. A context manager.

    Args:
        tally: What to show; changed by add() alone.
        store: Where status.json goes.
        activity: Tells what the executor is doing, in a few words.
        terminal: Where to show it.
        quiet: Show nothing; status.json is written all the same.
    """

    def __init__(
        self,
        tally: Tally,
        store: Store,
        activity: Callable[[], str],
        terminal: Terminal,
        *,
        quiet: bool = False,
    ) -> None:
        self._tally = tally
        self._store = store
        self._activity = activity
        self._terminal = terminal
        self._quiet = quiet
        self._console = Console(file=terminal.stream)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)
        self._bar: Progress | None = None
        self._activity_began = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet and not self._terminal.as_json:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
                console=self._console,
                # What others print is elsewhere, or else goes above the bar.
                redirect_stdout=not self._terminal.is_captured,
                redirect_stderr=not self._terminal.is_captured,
            )
            self._task = self._bar.add_task("", total=max(self._tally.num_rows, 1), text="")
            self._bar.start()
            self._terminal.console = self._console
        self._write_status(self._activity())
        self._show(self._activity())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        stopped = isinstance(error, KeyboardInterrupt | Interrupted)
        self._activity_began = time.monotonic()
        self._show("done" if error is None else "stopped" if stopped else "failed")
        if self._bar:
            self._bar.stop()
            self._terminal.console = None

    def add(self, outcome: UnitReport | UnitFailure) -> None:
        """Count and show one finished unit."""
        self._tally.add(outcome)
        if self._terminal.as_json and not self._quiet:
            self._terminal.say(**_unit_line(outcome))
        if self._bar:
            self._show(self._activity())

    def _refresh(self) -> None:
        last_line = last_status = time.monotonic()
        shown = self._activity()
        while not self._stop.wait(0.5):
            now, activity = time.monotonic(), self._activity()
            is_news = activity != shown
            if is_news:
                shown, self._activity_began = activity, now
            if is_news or now - last_status >= _STATUS_SECONDS:
                self._write_status(activity)
                last_status = now
            if is_news or self._bar or now - last_line >= _LINE_SECONDS:
                self._show(activity)
                last_line = now

    def _write_status(self, activity: str) -> None:
        # A full disk stops the job where scores are lost, not here.
        with suppress(OSError, CommitError):
            self._store.write_status({**self._tally.status("running"), "activity": activity})

    def _show(self, activity: str) -> None:
        if self._quiet:
            return
        done = self._tally.num_rows_committed
        if self._bar:
            self._bar.update(self._task, completed=done, text=self._text(), description=activity)
            return
        waited = time.monotonic() - self._activity_began
        # A speed of 0 would say that something is wrong; this says what is waited for.
        if self._tally.first_started is None and waited >= 1:
            activity += f" for {format_seconds(waited)}"
        self._terminal.say(
            f"{activity}: {done:,} of {self._tally.num_rows:,} pairs, {self._text()}"
        )

    def _text(self) -> str:
        has_begun = self._tally.first_started is not None
        parts = self._speeds() if has_begun else ["no unit finished"]
        if self._tally.num_units_failed:
            parts.append(f"{self._tally.num_units_failed:,} units failed")
        return ", ".join(parts)

    def _speeds(self) -> list[str]:
        pairs_per_second, tokens_per_second, eta = self._tally.rates()
        done = self._tally.done
        parts = [
            f"{pairs_per_second:,.1f} pairs/s",
            f"{tokens_per_second:,.0f} tokens/s",
            f"{done.num_rejected.total():,} rejected",
        ]
        if self._tally.is_reusing:
            parts.insert(
                0, f"reused {self._tally.done.num_reused:,} of {self._tally.done.num_rows:,}"
            )
        if eta:
            parts.append(f"{format_seconds(eta)} left")
        return parts
