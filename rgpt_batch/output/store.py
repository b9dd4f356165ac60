"""What a job needs from the place that its results live in.

out/part-<unit>.parquet          the rows of one unit; the file is its own commit record
out/_SUCCESS                     written last, when every unit is there
out/_rgpt/plan-<fingerprint>.json
out/_rgpt/failed/<unit>.json     units that ran out of attempts, with their cause
out/_rgpt/runs/<run>.json        one record per run of the command
out/_rgpt/logs/<run>-<worker>.log  what engines have printed; see log_folder
out/_rgpt/status.json            how far the present or last run is; estimate.json: plan --record
out/_rgpt/claims/…               who is at which unit, while processes share a job; see claims
out/_rgpt/processes/<run>.json   a sign of life of each of these processes
out/_rgpt/begun/<run>            what a run without Ray has in hand; see begun

The layout is the same everywhere. A kind of place adds how names are listed, and how bytes get
under a name in one atomic step.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rgpt_batch.errors import CommitError, ManifestMismatch
from rgpt_batch.output.listing import CommittedFile as CommittedFile
from rgpt_batch.output.listing import Listing as Listing
from rgpt_batch.output.place import Place
from rgpt_batch.output.success import Success
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import UnitFailure

_FAILURE = TypeAdapter(UnitFailure)
_RUN = re.compile(r"run-(\d+)-")
PART = re.compile(r"part-(\d{6,})\.parquet")
_PRIVATE = "_rgpt"
_CLAIMS = f"{_PRIVATE}/claims"
_PROCESSES = f"{_PRIVATE}/processes"
_BEGUN = f"{_PRIVATE}/begun"
SUCCESS = "_SUCCESS"


class Store(Place):
    """An output folder; it need not exist yet."""

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
        return self._files(self._list("").items())

    def _files(self, sizes: Iterable[tuple[str, int]]) -> dict[str, CommittedFile]:
        """Return the units' files among all files of the folder."""
        return {
            match[1]: CommittedFile(unit_id=match[1], path=f"{self.location}/{name}", size=size)
            for name, size in sorted(sizes)
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

    def claim(self, name: str, owner: str) -> bool:
        """Write down a claim; False where another process has it."""
        return self._create(f"{_CLAIMS}/{name}", owner.encode(), owner)

    def claims(self) -> set[str]:
        """Return the names of all claims."""
        return set(self._list(_CLAIMS))

    def claim_owner(self, name: str) -> str | None:
        """Return who has a claim; None where nobody has it any more."""
        content = self._read(f"{_CLAIMS}/{name}")
        return None if content is None else content.decode(errors="replace")

    def drop_claims(self, names: Iterable[str]) -> None:
        """Give claims back."""
        self._delete([f"{_CLAIMS}/{name}" for name in sorted(names)])

    def write_process(self, run_id: str, record: dict[str, Any]) -> None:
        """Give a sign of life of a process that shares the job with others."""
        self._write_record(f"{_PROCESSES}/{run_id}.json", record)

    def processes(self) -> dict[str, str]:
        """Return the last sign of life of each process by its run's id; another one differs."""
        found = self._versions(_PROCESSES).items()
        return {n.removesuffix(".json"): version for n, version in found if n.endswith(".json")}

    def read_processes(self) -> list[dict[str, Any]]:
        """Return what the processes said last."""
        return self._read_records(_PROCESSES)

    def drop_process(self, run_id: str) -> None:
        """Take a process off the list."""
        self._delete([f"{_PROCESSES}/{run_id}.json"])

    def write_begun(self, run_id: str, unit_ids: Iterable[str]) -> None:
        """Write down which units a run has in hand."""
        self._replace(f"{_BEGUN}/{run_id}", "\n".join(sorted(unit_ids)).encode())

    def read_begun(self) -> dict[str, list[str]]:
        """Return which units each run has in hand, or had when it died."""
        contents = {run_id: self._read(f"{_BEGUN}/{run_id}") for run_id in self._list(_BEGUN)}
        return {
            run_id: (content or b"").decode(errors="replace").split()
            for run_id, content in contents.items()
        }

    def drop_begun(self, run_ids: Iterable[str]) -> None:
        """Forget what runs had in hand."""
        self._delete([f"{_BEGUN}/{run_id}" for run_id in sorted(run_ids)])

    def drop_shares(self) -> None:
        """Forget who is or was at which unit, since every unit is there."""
        for folder in (_CLAIMS, _PROCESSES, _BEGUN):
            self._delete_folder(folder, last=())

    @contextmanager
    def temporary_folder(self) -> Iterator[str]:
        """Name a folder below the output that nobody else has; it is deleted at the end."""
        folder = f"{_PRIVATE}/staging/{uuid.uuid4().hex}"
        try:
            yield f"{self.location}/{folder}"
        finally:
            # What cannot be deleted does no harm.
            with suppress(CommitError):
                self._delete_folder(folder, last=())

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
