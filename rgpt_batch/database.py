"""DuckDB databases that keep to a limit of memory and leave nothing behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from rgpt_batch.config.arguments import check_text
from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.formatting import first_line

DEFAULT_MEMORY_GIB = 4.0


# Every thread of a sort or a join holds buffers of its own; with less it cannot even spill.
_GIB_PER_THREAD = 0.25


_FETCH_ROWS = 100_000


@contextmanager
def open_database(
    memory_gib: float = DEFAULT_MEMORY_GIB,
    temp_folder: str | None = None,
    *,
    remedy: str = "Raise --memory-gib, or set --temp-folder.",
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database that spills to disk and leaves nothing behind.

    Args:
        memory_gib: What DuckDB may hold in memory.
        temp_folder: Where it spills to; by default the system's folder for temporary files.
        remedy: What an error says about a lack of memory or disk.

    Raises:
        ConfigError: The memory or the disk is too small, or the folder cannot be written to.
        ShardError: A file cannot be read.
    """
    num_threads = max(1, min(len(os.sched_getaffinity(0)), int(memory_gib / _GIB_PER_THREAD)))
    try:
        check_text(os.path.abspath(temp_folder or tempfile.gettempdir()))
        spill = tempfile.TemporaryDirectory(prefix="rgpt-batch-", dir=temp_folder)
    except OSError as error:
        raise ConfigError(
            f"{temp_folder or tempfile.gettempdir()}: cannot hold temporary files: "
            f"{error.strerror}. Set --temp-folder to a folder on a disk with room."
        ) from error
    try:
        with (
            spill as spill_folder,
            duckdb.connect(
                config={
                    "memory_limit": f"{int(memory_gib * 1024)}MiB",
                    "threads": num_threads,
                    "temp_directory": spill_folder,
                    # Only ORDER BY decides an order here; keeping another costs memory.
                    "preserve_insertion_order": False,
                }
            ) as connection,
        ):
            connection.execute("SET enable_progress_bar = false")
            yield connection
    except RuntimeError as error:
        # DuckDB raises one where a signal's handler has raised something.
        if isinstance(error.__cause__, KeyboardInterrupt | SystemExit):
            raise error.__cause__ from None
        raise
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(
            f"{memory_gib:g} GiB of memory are too few, or the disk of "
            f"{temp_folder or tempfile.gettempdir()} is full: {first_line(error)}. "
            f"{remedy}"
        ) from error
    except duckdb.Error as error:
        raise ShardError(
            f"DuckDB failed: {first_line(error)}. Check the files that it names, and the disk."
        ) from error


def fetch_rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query's result without holding all of them."""
    while rows := result.fetchmany(_FETCH_ROWS):
        yield from rows


def quote_name(name: str) -> str:
    """Write the name of a column or table in SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """Write a text in SQL."""
    return "'" + text.replace("'", "''") + "'"
