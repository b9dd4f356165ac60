"""What a job needs from the place that its results live in.

out/part-<unit>.parquet          the rows of one unit; the file is its own commit record
out/_SUCCESS                     written last, when every unit is there
out/_rgpt/plan-<fingerprint>.json
out/_rgpt/failed/<unit>.json     units that ran out of attempts, with their cause
out/_rgpt/runs/<run>.json        one record per run of the command
out/_rgpt/status.json            how far the present or last run is
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from rgpt_batch.manifest import Manifest
from rgpt_batch.records import UnitFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedFile:
    """A published output file."""

    unit_id: str
    path: str
    size: int


class Store(Protocol):
    """An output folder."""

    location: str

    def has_manifest(self) -> bool:
        """Whether a job of ours has been planned here."""
        ...

    def load_manifest(self) -> Manifest | None:
        """Return the plan that the folder belongs to, if there is one.

        Raises:
            ManifestMismatch: There are several plans, or there is something else than our work.
        """
        ...

    def save_manifest(self, manifest: Manifest) -> None:
        """Freeze a plan. Where the same fingerprint is frozen already, that one stays."""
        ...

    def committed(self) -> dict[str, CommittedFile]:
        """List the published units in one call, by unit id."""
        ...

    def commit(self, unit_id: str, attempt: str, table: pa.Table) -> bool:
        """Publish the rows of a unit in one atomic step.

        Returns:
            False where another attempt has published the unit already; its rows stay.

        Raises:
            CommitError: Nothing was published. Trying again is safe.
        """
        ...

    def write_success(self, summary: dict[str, Any]) -> None:
        """Declare the job complete, and drop what only unfinished jobs need."""
        ...

    def read_success(self) -> dict[str, Any] | None:
        """Return what write_success wrote, if the job is complete."""
        ...

    def write_run(self, run_id: str, record: dict[str, Any]) -> None:
        """Keep the record of one run of the command."""
        ...

    def read_runs(self) -> list[dict[str, Any]]:
        """Return the records of all runs, oldest first."""
        ...

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace status.json."""
        ...

    def read_status(self) -> dict[str, Any] | None:
        """Return status.json."""
        ...

    def write_failures(self, failures: list[UnitFailure]) -> None:
        """Replace the list of failed units."""
        ...

    def read_failures(self) -> list[UnitFailure]:
        """Return the failed units of the last run."""
        ...

    def clear(self) -> None:
        """Delete everything that a job has written here, and nothing else."""
        ...
