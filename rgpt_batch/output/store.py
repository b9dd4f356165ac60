"""What a job needs from the place that its results live in.

out/part-<unit>.parquet          the rows of one unit; the file is its own commit record
out/_SUCCESS                     written last, when every unit is there
out/_rgpt/plan-<fingerprint>.json
out/_rgpt/failed/<unit>.json     units that ran out of attempts, with their cause
out/_rgpt/runs/<run>.json        one record per run of the command
out/_rgpt/logs/<run>-<worker>.log  what engines have printed; see log_folder
out/_rgpt/status.json            how far the present or last run is; estimate.json: plan --record

The layout is the same everywhere. A kind of place adds how names are listed, and how bytes get
under a name in one atomic step.
"""

from __future__ import annotations

import json
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rgpt_batch.errors import ManifestMismatch
from rgpt_batch.output.success import Success
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import UnitFailure
from rgpt_batch.storage.uris import redacted

_FAILURE = TypeAdapter(UnitFailure)
_RUN = re.compile(r"run-(\d+)-")
PART = re.compile(r"part-(\d{6,})\.parquet")
_PRIVATE = "_rgpt"
SUCCESS = "_SUCCESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedFile:
    """A published output file."""

    unit_id: str
    path: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What an output folder holds.

    Attributes:
        files: The published units, by unit id.
        is_declared: Whether there is a _SUCCESS, true or not.
        declared: What it says, true or not; None where that is not understood.
        problem: Why the files do not count as a complete output; None where they do.
    """

    files: dict[str, CommittedFile]
    is_declared: bool
    declared: Success | None
    problem: str | None

    @property
    def success(self) -> Success | None:
        """What _SUCCESS says, if it names exactly the files that are there."""
        return self.declared if self.problem is None else None


class Store(ABC):
    """An output folder; it need not exist yet.

    Attributes:
        location: Absolute path or URI.

    Raises:
        CommitError: From everything that writes.
        StorageError: From everything that reads an object store.
    """

    location: str

    def has_manifest(self) -> bool:
        """Whether a job of ours has been planned here."""
        return bool(self._plans())

    def load_manifest(self) -> Manifest | None:
        """Return the plan that the folder belongs to, if there is one.

        Raises:
            ManifestMismatch: There are several plans, or there is something else than our work.
        """
        plans = self._plans()
        if len(plans) > 1:
            raise ManifestMismatch(
                f"{self.location}: holds {len(plans)} plans, expected one. "
                "Use another output folder, or --on-change overwrite."
            )
        if plans and (content := self._read(plans[0])) is not None:
            return Manifest.from_json(content, f"{self.location}/{plans[0]}")
        if foreign := sorted(self._list("").keys() - {_PRIVATE}):
            raise ManifestMismatch(
                f"{self.location}: the folder is not empty ({', '.join(foreign[:3])} …) "
                "and belongs to no job of rgpt-batch. Use another output folder."
            )
        return None

    def save_manifest(self, manifest: Manifest) -> None:
        """Freeze a plan. Where the same fingerprint is frozen already, that one stays."""
        name = f"{_PRIVATE}/plan-{manifest.fingerprint}.json"
        self._create(name, manifest.to_json(), uuid.uuid4().hex)

    def committed(self) -> dict[str, CommittedFile]:
        """List the published units in one call, by unit id."""
        return {
            match[1]: CommittedFile(unit_id=match[1], path=f"{self.location}/{name}", size=size)
            for name, size in sorted(self._list("").items())
            if (match := PART.fullmatch(name))
        }

    def commit(self, unit_id: str, attempt: str, content: bytes | memoryview) -> bool:
        """Publish a unit's file in one atomic step.

        Returns:
            False where another attempt has published the unit already; its rows stay.

        Raises:
            CommitError: Nothing was published. Trying again is safe.
            CommitStateUnknown: Nobody knows. Trying again is safe.
        """
        return self._create(f"part-{unit_id}.parquet", content, attempt)

    def write_success(self, success: Success) -> None:
        """Declare the job complete, and drop what killed runs have left behind."""
        self._write_record(SUCCESS, success.model_dump(mode="json"))

    def listing(self) -> Listing:
        """List the published units, and say whether they are the whole job."""
        content = self._read(SUCCESS)
        # In this order: what a true _SUCCESS names was there before it.
        files = self.committed()
        declared = problem = None
        if content is None:
            problem = "its job has not finished, so pairs are missing"
        else:
            try:
                declared = Success.model_validate_json(content)
                problem = declared.mismatch({file.name: file.size for file in files.values()})
            except ValidationError:
                problem = f"its {SUCCESS} is damaged, or of another version of rgpt-batch"
        return Listing(
            files=files, is_declared=content is not None, declared=declared, problem=problem
        )

    def withdraw_false_success(self) -> dict[str, CommittedFile]:
        """Delete a _SUCCESS that is not of exactly the files that are there; list these.

        A run begins with it. Another run may finish just then, and the _SUCCESS that is deleted be
        its true one. So the files are listed once more: this run then finds all of them, has
        nothing to score, and writes _SUCCESS again.
        """
        listing = self.listing()
        if listing.success is not None or not listing.is_declared:
            return listing.files
        self._delete([SUCCESS])
        return self.committed()

    def write_run(self, run_id: str, record: dict[str, Any]) -> None:
        """Keep the record of one run of the command."""
        self._write_record(f"{_PRIVATE}/runs/{run_id}.json", record)

    def new_run_id(self) -> str:
        """Name a run so that it comes after all that are on record.

        Names count, because a clock may be set back. Two runs that begin at once share a number.
        """
        names = self._list(f"{_PRIVATE}/runs")
        numbers = [int(match[1]) for name in names if (match := _RUN.match(name))]
        return f"run-{max(numbers, default=0) + 1:06d}-{uuid.uuid4().hex[:8]}"

    def read_runs(self) -> list[dict[str, Any]]:
        """Return the records of all runs, oldest first.

        Once they were named by their time: digits, which come before letters.
        """
        return self._read_records(f"{_PRIVATE}/runs")

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace status.json."""
        self._write_record(f"{_PRIVATE}/status.json", status)

    def read_status(self) -> dict[str, Any] | None:
        """Return status.json."""
        return self._read_record(f"{_PRIVATE}/status.json")

    def write_estimate(self, estimate: dict[str, Any]) -> None:
        """Keep what `plan --record` has said."""
        self._write_record(f"{_PRIVATE}/estimate.json", estimate)

    def read_estimate(self) -> dict[str, Any] | None:
        """Return what `plan --record` has said last."""
        return self._read_record(f"{_PRIVATE}/estimate.json")

    def add_failure(self, failure: UnitFailure) -> None:
        """Record a failed unit."""
        self._write_record(f"{_PRIVATE}/failed/{failure.unit_id}.json", asdict(failure))

    def drop_failures(self, unit_ids: Iterable[str]) -> None:
        """Forget failed units that are scored by now."""
        done = self.failed_unit_ids().intersection(unit_ids)
        self._delete([f"{_PRIVATE}/failed/{unit_id}.json" for unit_id in sorted(done)])

    def failed_unit_ids(self) -> set[str]:
        """Return the ids of all failed units."""
        names = self._list(f"{_PRIVATE}/failed")
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def read_failures(self) -> list[UnitFailure]:
        """Return the failed units; records that only another version understands are left out."""
        failures = []
        for record in self._read_records(f"{_PRIVATE}/failed"):
            with suppress(ValidationError):
                failures.append(_FAILURE.validate_python(record))
        return failures

    def clear(self) -> None:
        """Delete everything that a job has written here, and nothing else.

        _SUCCESS goes first, so that no reader takes the rest for complete. The plan goes last:
        until then a folder whose clearing was cut short is known as that job's.
        """
        self._delete([SUCCESS])
        self._delete([file.name for file in self.committed().values()])
        self._delete_folder(_PRIVATE, last=self._plans())

    def _plans(self) -> list[str]:
        names = sorted(self._list(_PRIVATE))
        return [f"{_PRIVATE}/{name}" for name in names if re.fullmatch(r"plan-.*\.json", name)]

    def _write_record(self, name: str, record: dict[str, Any]) -> None:
        # The configuration is what the user has written, is checked for secrets, and is read again.
        shown = {key: value if key == "config" else _masked(value) for key, value in record.items()}
        self._replace(name, json.dumps(shown, indent=1).encode())

    def _read_record(self, name: str) -> dict[str, Any] | None:
        """Return a record, or None where it is absent or damaged: each can be written again."""
        try:
            record = json.loads(self._read(name) or b"null")
        except (ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) else None

    def _read_records(self, folder: str) -> list[dict[str, Any]]:
        names = sorted(name for name in self._list(folder) if name.endswith(".json"))
        return [r for name in names if (r := self._read_record(f"{folder}/{name}")) is not None]

    @property
    def log_folder(self) -> str | None:
        """Where logs grow; None where no file can: each is in its machine's temporary folder."""
        return None

    @abstractmethod
    def _list(self, folder: str) -> dict[str, int]:
        """Return the names directly below a folder, with sizes in bytes; {} where it is absent."""

    @abstractmethod
    def _read(self, name: str) -> bytes | None:
        """Return a file's content, or None where there is no such file."""

    @abstractmethod
    def _create(self, name: str, content: bytes | memoryview, attempt: str) -> bool:
        """Write a file that does not exist in one atomic step; False where another attempt has."""

    @abstractmethod
    def _replace(self, name: str, content: bytes) -> None:
        """Write a file in one atomic step, over an old one if there is one."""

    @abstractmethod
    def _delete(self, names: Sequence[str]) -> None:
        """Delete files; absent ones do not matter."""

    @abstractmethod
    def _delete_folder(self, folder: str, last: Sequence[str]) -> None:
        """Delete a folder of ours with all that is in it, and some files after all others."""


def _masked(value: Any) -> Any:
    """Mask credentials in all texts of a record: causes repeat what libraries say."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items()}
    return [_masked(inner) for inner in value] if isinstance(value, list | tuple) else value
