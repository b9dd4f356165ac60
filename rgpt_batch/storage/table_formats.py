"""Folders whose files are not all rows of a table: a log beside them says which ones are.

Read file by file, rows that were deleted come back, and rows that were rewritten come twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from rgpt_batch.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFormat:
    """A format that keeps a log.

    Attributes:
        name: What messages call such a folder.
        log: The folder in it that holds the log.
        entry: What files of the log are called.
        export: How to write the rows of the table to plain Parquet; {} stands for the folder.
    """

    name: str
    log: str
    entry: re.Pattern[str]
    export: str


_FORMATS = (
    TableFormat(
        name="a Delta Lake table",
        log="_delta_log",
        entry=re.compile(r"\d{20}\..+"),
        export="deltalake.DeltaTable('{}').to_pyarrow_dataset() and pyarrow.dataset.write_dataset",
    ),
    TableFormat(
        name="an Iceberg table",
        log="metadata",
        entry=re.compile(r"(v\d+|\d+-.+)(\.gz)?\.metadata\.json(\.gz)?"),
        export="PyIceberg's table.scan().to_arrow_batch_reader() and pyarrow.dataset.write_dataset",
    ),
    TableFormat(
        name="a Hudi table",
        log=".hoodie",
        entry=re.compile(r"hoodie\.properties"),
        export="spark.read.format('hudi').load('{}').write.parquet('…')",
    ),
    TableFormat(
        name="a Paimon table",
        log="snapshot",
        entry=re.compile(r"snapshot-\d+"),
        export="spark.read.format('paimon').load('{}').write.parquet('…')",
    ),
    TableFormat(
        name="the output of a Spark stream",
        log="_spark_metadata",
        entry=re.compile(r"\d+(\.compact)?"),
        export="spark.read.parquet('{}').write.parquet('…')",
    ),
)
LOGS = frozenset(found.log for found in _FORMATS)


def refuse_tables(folders: Iterable[str], list_names: Callable[[str], Collection[str]]) -> None:
    """Raise ConfigError where one of these folders is the folder of such a table.

    Args:
        folders: Those that hold files to read, and those above them.
        list_names: Returns the names in a folder; none where there is no such folder.
    """
    for folder in folders:
        for kind in _FORMATS:
            if any(map(kind.entry.fullmatch, list_names(f"{folder.rstrip('/')}/{kind.log}"))):
                raise ConfigError(
                    f"{folder}: {kind.name}. Only its log, {kind.log}, tells which rows of its "
                    "files count, and the log is not read here. Write these rows to plain Parquet "
                    f"and name that; for example with {kind.export.format(folder)}."
                )
