"""Which Parquet files a command's arguments mean where outputs of jobs are among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError, StorageError
from rgpt_batch.input.find import resolve_inputs
from rgpt_batch.input.rows import read_schema
from rgpt_batch.output import holds_job, open_store
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.output.store import PART
from rgpt_batch.storage.files import local_path
from rgpt_batch.storage.find import Found, find, top_folder
from rgpt_batch.storage.uris import identity


def find_files(inputs: Sequence[str]) -> list[str]:
    """Expand arguments as resolve_inputs does; a folder of a job stands for its output files.

    Raises:
        ConfigError: See resolve_inputs; or an argument is a folder whose job is not complete.
    """
    return resolve_inputs(inputs, _find)


def _find(argument: str) -> Found:
    if _is_job(argument):
        # A ranking may have been written into the folder, too.
        return Found(_output_files(argument))
    found = find(argument)
    top = identity(top_folder(argument)[0])
    paths = [file.rpartition("/") for file in found.files]
    for folder in sorted({folder for folder, _, name in paths if PART.fullmatch(name)}):
        # Whoever spells the folder and asks for its files is after those that are there.
        if identity(folder) not in (top, top.rpartition("/")[0]) and _is_job(folder):
            _output_files(folder)
    return found


def _output_files(folder: str) -> list[str]:
    """Return the files of a job; raises ConfigError where they are not all there."""
    listing = open_store(folder).listing()
    if listing.problem is not None:
        raise ConfigError(
            f"{folder}: {listing.problem}. Run its job again, or name the files that are "
            f"there: '{folder.rstrip('/')}/part-*.parquet'."
        )
    return [file.path for file in listing.files.values()]


def _is_job(argument: str) -> bool:
    try:
        return holds_job(argument)
    except StorageError as error:
        if error.is_transient:
            raise
        # Who may read an object may be denied the listing of a folder.
        return False


def is_parquet(path: str) -> bool:
    """Tell Parquet from TREC runs by the first bytes of a file.

    A folder or a pattern stands for Parquet. A pipe, which can be read once, holds text.

    Raises:
        ShardError: The file cannot be read.
    """
    if not local_path(path) or not Path(path).exists() or Path(path).is_dir():
        return True
    if not Path(path).is_file():
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(4) == b"PAR1"
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error}. Check permissions.") from error


def is_invented(path: str) -> bool:
    """Whether the fake engine, which has no model, wrote the first of the files that are named.

    Raises:
        ConfigError, StorageError: See find_files.
    """
    if not is_parquet(path):
        return False
    try:
        footer, _ = read_footer(find_files([path])[0])
    except (ShardError, ManifestMismatch):
        # Somebody else's Parquet.
        return False
    return footer.engine == "fake"


def column_names(file: str) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        ShardError: The file is not readable Parquet.
        StorageError: The storage fails.
    """
    return list(read_schema(file).names)
