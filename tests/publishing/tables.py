"""The tables that tests publish to, read by DuckDB: the files that a table's own metadata name."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.table import Table

from rgpt_batch.publishing.publish import Summary, publish_output
from rgpt_batch.storage import objects
from rgpt_batch.storage.connections import client_settings

KINDS = ("delta", "iceberg", "parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A table of one kind; it need not exist yet.

    Attributes:
        folder: Local; holds the catalog of an Iceberg table, and all else where there is no URI.
        uri: Where the table's files are, in an object store.
    """

    kind: str
    folder: Path
    uri: str | None = None
    name: str = "table"

    @property
    def place(self) -> str:
        return f"{self.uri or self.folder}/{self.name}"

    @property
    def to(self) -> str:
        place = f"lake.scores.{self.name}" if self.kind == "iceberg" else self.place
        return f"{self.kind}:{place}"

    @property
    def properties(self) -> dict[str, str]:
        if self.kind != "iceberg":
            return {}
        return {
            "type": "sql",
            "uri": f"sqlite:///{self.folder}/catalog.db",
            "warehouse": f"{self.uri or self.folder.as_uri()}/warehouse",
        }

    def catalog(self) -> Catalog:
        # pyiceberg itself does not look at the environment for these.
        store = {"s3.endpoint": os.environ.get("AWS_ENDPOINT_URL", ""), "s3.region": "us-east-1"}
        catalog = load_catalog("lake", **self.properties, **(store if self.uri else {}))
        catalog.create_namespace_if_not_exists("scores")
        return catalog

    def iceberg(self) -> Table:
        return self.catalog().load_table(f"scores.{self.name}")

    def delta(self) -> DeltaTable:
        return DeltaTable(self.place, storage_options=client_settings(self.place))

    def prepare(self) -> None:
        """Make what a table is made in."""
        if self.kind == "iceberg":
            self.catalog()

    def publish(self, output: str | Path, *, target_bytes: int = 2**20, **columns: str) -> Summary:
        self.prepare()
        return publish_output(
            output,
            self.to,
            partitions=columns,
            target_bytes=target_bytes,
            catalog_properties=self.properties,
        )

    def files(self) -> list[str]:
        """The data files of the table's present state."""
        if self.kind == "delta":
            try:
                return list(map(unquote, self.delta().file_uris()))
            except TableNotFoundError:
                return []
        if self.kind == "iceberg":
            if not self.catalog().table_exists(f"scores.{self.name}"):
                return []
            tasks = self.iceberg().scan().plan_files()
            return [task.file.file_path.removeprefix("file://") for task in tasks]
        if self.uri:
            # What a reader of object stores is told to do: folders with _SUCCESS count.
            found = list(objects.list_tree(self.place))
            whole = [uri.removesuffix("_SUCCESS") for uri in found if uri.endswith("/_SUCCESS")]
            return [uri for uri in found if uri.endswith("t") and uri.startswith(tuple(whole))]
        # What an engine finds that looks everywhere below the folder.
        return sorted(map(str, Path(self.place).glob("**/*.parquet")))

    def rows(self, columns: str = "*") -> pa.Table:
        """The rows of the table, by doc_id and fingerprint; an empty table has no columns."""
        if not (files := self.files()):
            return pa.table({})
        with tempfile.TemporaryDirectory() as copies:
            # DuckDB reads object stores with an extension alone, which it would download.
            local = [_copied(file, copies) if self.uri else file for file in files]
            return duckdb.sql(
                f"SELECT {columns} FROM read_parquet({local}, union_by_name = true, "
                "hive_types_autocast = false) ORDER BY doc_id, fingerprint"
            ).to_arrow_table()

    def counts(self) -> dict[str, int]:
        """The number of rows by fingerprint; each row is there once."""
        found = self.rows("doc_id, fingerprint")
        pairs = [tuple(row.values()) for row in found.to_pylist()]
        assert len(set(pairs)) == len(pairs), "rows are doubled"
        fingerprints = [fingerprint for _, fingerprint in pairs]
        return {name: fingerprints.count(name) for name in set(fingerprints)}


def _copied(uri: str, folder: str) -> str:
    copy = Path(folder, uri.partition("://")[2])
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(objects.read(uri))
    return str(copy)


def log_entries(target: Target) -> list[dict[str, Any]]:
    """All actions of a local Delta table's log."""
    log = sorted(Path(target.place, "_delta_log").glob("*.json"))
    return [json.loads(line) for file in log for line in file.read_text().splitlines()]
