"""A complete output → a table that others read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rgpt_batch.config.arguments import Location
from rgpt_batch.errors import ConfigError
from rgpt_batch.output import open_store
from rgpt_batch.publishing.delta import publish_delta
from rgpt_batch.publishing.hive import publish_hive
from rgpt_batch.publishing.iceberg import IcebergTable, publish_iceberg
from rgpt_batch.publishing.publication import Published, read_publication
from rgpt_batch.storage.uris import identity, is_inside

_FORMS = "delta:FOLDER, iceberg:CATALOG.NAMESPACE.TABLE or parquet:FOLDER"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What is the same in SQL, in a path and in a URI.
_VALUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was published, and where it stands.

    Attributes:
        table: The result for the table.
    """

    fingerprint: str
    num_rows: int
    table: Published


def publish_output(
    output: Location,
    to: str,
    *,
    partitions: Mapping[str, str],
    target_bytes: int,
    catalog_properties: Mapping[str, str],
) -> Summary:
    """Make a table's rows of a job those of its output.

    Args:
        output: The job's output folder, a path or URI.
        to: Format and place: delta:FOLDER, iceberg:CATALOG.NAMESPACE.TABLE or parquet:FOLDER.
        partitions: Columns with one value for all rows.
        target_bytes: Of a data file.
        catalog_properties: Settings of an Iceberg catalog beside those that pyiceberg finds.

    Raises:
        ConfigError: The output is not complete, or the table cannot take it.
        ShardError: A file of the output is not the one that _SUCCESS names.
        CommitError, StorageError: The table or the output cannot be read or written.
    """
    for name, value in partitions.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ConfigError(
                f"{name}={value}: a partition's name has letters, digits and _, its value these, "
                "'.' and '-', such as date=2026-11-27."
            )
    kind, _, place = to.partition(":")
    if kind not in ("delta", "iceberg", "parquet") or not place:
        raise ConfigError(f"--to {to}: expected {_FORMS}.")
    if catalog_properties and kind != "iceberg":
        raise ConfigError(f"--to {to}: only Iceberg has a catalog with properties.")
    store = open_store(output)
    if kind == "iceberg":
        target = _iceberg_table(place, catalog_properties)
        rows = read_publication(store, partitions)
        table = publish_iceberg(rows, target, target_bytes)
    else:
        if (
            identity(place) == identity(store.location)
            or is_inside(place, store.location)
            or is_inside(store.location, place)
        ):
            raise ConfigError(
                f"{place}: one of the table and the output {store.location} lies in the other. "
                "Name a folder of its own."
            )
        rows = read_publication(store, partitions)
        publish = publish_delta if kind == "delta" else publish_hive
        table = publish(rows, place, target_bytes)
    return Summary(fingerprint=rows.fingerprint, num_rows=rows.success.num_rows, table=table)


def _iceberg_table(place: str, properties: Mapping[str, str]) -> IcebergTable:
    catalog, *identifier = place.split(".")
    if len(identifier) < 2 or not all((catalog, *identifier)):
        raise ConfigError(f"--to iceberg:{place}: expected iceberg:CATALOG.NAMESPACE.TABLE.")
    return IcebergTable(catalog=catalog, identifier=tuple(identifier), properties=properties)
