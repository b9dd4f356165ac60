"""What `status` shows of a job: from what is committed, and from what the last run has recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rgpt_batch.commands.text import format_rejected
from rgpt_batch.errors import ManifestMismatch, ShardError
from rgpt_batch.formatting import format_seconds
from rgpt_batch.job.progress import Status
from rgpt_batch.job.restore import scored_store
from rgpt_batch.job.run import SignOfLife
from rgpt_batch.output import Store
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.planning.manifest import Manifest

# A job that runs renews its status every two seconds.
_SILENT_SECONDS = 30
_WATCH_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """How far a job is.

    Attributes:
        state: What the last run has recorded, or what the folder shows.
        facts: For programs.
        lines: For people.
    """

    state: str
    facts: dict[str, Any]
    lines: list[str]

    @classmethod
    def of(cls, store: Store, manifest: Manifest) -> StatusView:
        """Look at an output folder."""
        listing = store.listing()
        committed, units = listing.files, manifest.units
        if manifest.clustered and listing.problem is not None:
            # What is there of the output tells nothing until all is scored.
            committed, units = scored_store(store, manifest).committed(), manifest.clustered
        recorded = _read_status(store)
        # A record may be older than what the folder shows.
        if listing.problem is None:
            recorded.state = "complete"
        elif recorded.state == "complete":
            recorded.state = "unfinished"
        if listing.success is not None:
            recorded.num_rejected = listing.success.num_rejected
        recorded.engines = recorded.engines or _engine_of(committed)
        num_rows = sum(unit.num_rows for unit in units if unit.unit_id in committed)
        failed_units = {
            failure.unit_id: failure.cause
            for failure in store.read_failures()
            if failure.unit_id not in committed
        }
        processes = [] if listing.problem is None else _read_processes(store)
        in_last_run = recorded.state not in ("complete", "incomplete")
        shown = {
            "state": _format_state(recorded),
            "units": f"{len(committed):,} of {len(units):,} committed",
            "rows": f"{num_rows:,} of {manifest.num_rows:,}",
            "rejected": format_rejected(recorded.num_rejected)
            + (" in the last run" if in_last_run else ""),
        }
        if recorded.engines:
            shown["engine"] = _format_engines(recorded.engines)
        if listing.is_declared and listing.problem is not None:
            shown["note"] = f"{listing.problem}. The same command mends that."
        if recorded.state == "running" and recorded.eta_seconds is not None:
            shown["speed"] = (
                f"{recorded.pairs_per_second:,.1f} pairs/s, "
                f"{format_seconds(recorded.eta_seconds)} left"
            )
        facts = {
            **recorded.model_dump(mode="json", exclude_unset=True),
            "num_units": len(units),
            "num_units_committed": len(committed),
            "num_rows": manifest.num_rows,
            "num_rows_committed": num_rows,
            "complete": listing.problem is None,
            "failed_units": failed_units,
        }
        if processes:
            facts["processes"] = [process.model_dump() for process in processes]
        lines = [
            *(f"{name:<12} {fact}" for name, fact in shown.items()),
            *(f"process      {each.name}: {_format_process(each)}" for each in processes),
            *(f"failed       unit {name}: {why}" for name, why in failed_units.items()),
        ]
        return cls(state=recorded.state, facts=facts, lines=lines)


def watch_job(store: Store, manifest: Manifest) -> None:
    """Show how far a job is until it ends. A run that was killed may be resumed at any time."""
    from rich.console import Group
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            view = StatusView.of(store, manifest)
            bar = ProgressBar(
                total=max(1, manifest.num_rows),
                completed=view.facts["num_rows_committed"],
                width=40,
            )
            live.update(Group(bar, Text("\n".join(view.lines))), refresh=True)
            if view.state not in ("planned", "running", "unfinished"):
                return
            time.sleep(_WATCH_SECONDS)


def _read_status(store: Store) -> Status:
    try:
        return Status.model_validate(store.read_status() or {"state": "planned"})
    except ValidationError:
        return Status(state="unknown: status.json is of another version of rgpt-batch")


def _engine_of(committed: Mapping[str, CommittedFile]) -> tuple[str, ...]:
    """Return the method that scored some file: the last run may have scored none."""
    for file in committed.values():
        # Whether files are sound is for verify to tell.
        with suppress(ShardError, ManifestMismatch):
            return (read_footer(file.path)[0].engine,)
    return ()


def _format_engines(engines: Sequence[str]) -> str:
    return ", ".join(engines) + (": the scores are invented" if "fake" in engines else "")


def _read_processes(store: Store) -> list[SignOfLife]:
    """Return the processes that share the job; records of other versions are left out."""
    found = []
    for record in store.read_processes():
        with suppress(ValidationError):
            found.append(SignOfLife.model_validate(record))
    return found


def _format_process(process: SignOfLife) -> str:
    age = time.time() - process.updated_at
    doing = process.activity
    if age > _SILENT_SECONDS:
        doing = f"no sign of life for {format_seconds(age)}"
    return f"{doing}, {process.num_rows:,} rows, {process.pairs_per_second:,.1f} pairs/s"


def _format_state(recorded: Status) -> str:
    if recorded.state != "running":
        return recorded.state
    age = time.time() - recorded.updated_at
    if age > _SILENT_SECONDS:
        return f"no sign of life for {format_seconds(age)}; the same command resumes"
    return f"running: {recorded.activity}"
