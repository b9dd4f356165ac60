"""What the files of an output say of themselves, and whether they are those of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from rgpt_batch.errors import ManifestMismatch, ShardError
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.output.success import OutputFile
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import RejectionReason
from rgpt_batch.storage.files import sha256

_REPAIR = "Delete it and run the same command again."
_NUM_FILES_SHOWN = 3


def describe_files(
    files: Mapping[str, CommittedFile],
) -> tuple[dict[str, OutputFile], list[str]]:
    """Read and hash published files.

    Returns:
        By unit id those that are whole, and a sentence for each of the others.

    Raises:
        StorageError, OSError: The storage fails; nothing is known of the files.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        found = dict(zip(files, pool.map(_describe, files.values()), strict=True))
    return (
        {unit_id: file for unit_id, file in found.items() if isinstance(file, OutputFile)},
        [file for file in found.values() if isinstance(file, str)],
    )


def foreign_files(files: Mapping[str, OutputFile], manifest: Manifest) -> list[str]:
    """Say which files are not those of the plan, a sentence each."""
    num_rows = {unit.unit_id: unit.num_rows for unit in manifest.units}
    return [
        f"{file.name} belongs to another job. {_REPAIR}"
        for unit_id, file in files.items()
        if file.fingerprint != manifest.fingerprint or file.num_rows != num_rows.get(unit_id)
    ]


def crash_problem(files: Iterable[OutputFile], scored_in: str | None = None) -> str:
    """Say which files hold rows that have no score because the engine dies or fails of them.

    Args:
        files: Those that were scored.
        scored_in: Where they are, if the output's files are made of them.
    """
    crashes = {
        file.name: file.num_rejected[RejectionReason.ENGINE_CRASH]
        for file in files
        if RejectionReason.ENGINE_CRASH in file.num_rejected
    }
    names = ", ".join(list(crashes)[:_NUM_FILES_SHOWN])
    more = f" and {len(crashes) - _NUM_FILES_SHOWN} more" if len(crashes) > _NUM_FILES_SHOWN else ""
    place = "" if scored_in is None else f" of {scored_in}"
    others = "" if scored_in is None else " and all part files of the output"
    return (
        f"{sum(crashes.values()):,} rows have no score because they kill the engine or make it "
        f"fail, in {names}{more}{place}. To try them once more, delete these files{others} and run "
        "the same command again."
    )


def _describe(file: CommittedFile) -> OutputFile | str:
    """Return what a file says, or why it is not whole."""
    try:
        footer, metadata = read_footer(file.path)
    except ManifestMismatch as error:
        return str(error)
    except ShardError as error:
        return f"{error} {_REPAIR}"
    if metadata.num_rows != footer.num_rows:
        return (
            f"{file.path}: {metadata.num_rows} rows, its footer says {footer.num_rows}. {_REPAIR}"
        )
    if footer.unit_id != file.unit_id:
        return f"{file.path}: holds the rows of unit {footer.unit_id}. {_REPAIR}"
    return OutputFile(
        name=file.name,
        size=file.size,
        sha256=sha256(file.path),
        num_rows=footer.num_rows,
        num_rejected=footer.num_rejected,
        num_reused=footer.num_reused,
        fingerprint=footer.fingerprint,
    )
