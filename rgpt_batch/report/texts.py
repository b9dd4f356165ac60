"""Texts of some queries and documents: from the output if it holds them, else from the input.

Texts are a help to the reader: where the input is gone or damaged, there are none.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import duckdb

from rgpt_batch.database import quote_name
from rgpt_batch.output.store import CommittedFile
from rgpt_batch.planning.manifest import Manifest

_FROM = "FROM read_parquet($files, hive_partitioning = false, filename = true)"


class Texts:
    """Finds texts by their ids.

    Args:
        connection: See database.open_database.
        files: Of the output, on this machine.
        manifest: Tells which columns hold what, and where the input is.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        files: Sequence[CommittedFile],
        manifest: Manifest,
    ) -> None:
        self._connection = connection
        self._columns = manifest.columns
        self._outputs = [file.path for file in files]
        shards = dict.fromkeys(s.path for unit in manifest.units for s in unit.segments)
        self._inputs = list(filter(os.path.isfile, shards))

    def queries(self, query_ids: Sequence[str]) -> dict[str, str]:
        """Find the texts of queries."""
        text = self._columns.query
        files, query_id, _ = self._source(text)
        found = self._select(
            f"SELECT {query_id}::VARCHAR AS id, min({quote_name(text)}) {_FROM} "
            f"WHERE id IN (SELECT unnest($query_ids)) AND trim({quote_name(text)}) <> '' "
            "GROUP BY id",
            files,
            query_ids=query_ids,
        )
        return {row[0]: row[1] for row in found}

    def documents(
        self, query_ids: Sequence[str], doc_ids: Sequence[str]
    ) -> dict[tuple[str, str], str]:
        """Find the texts of documents among the candidates of queries, by both ids."""
        text = self._columns.document
        files, query_id, doc_id = self._source(text)
        are_wanted = (
            f"{query_id}::VARCHAR IN (SELECT unnest($query_ids)) "
            f"AND {doc_id}::VARCHAR IN (SELECT unnest($doc_ids))"
        )
        # Ids first: texts are read from the few files that hold one of the pairs.
        holding = self._select(
            f"SELECT DISTINCT filename {_FROM} WHERE {are_wanted}",
            files,
            query_ids=query_ids,
            doc_ids=doc_ids,
        )
        found = self._select(
            f"SELECT {query_id}::VARCHAR, {doc_id}::VARCHAR, min({quote_name(text)}) {_FROM} "
            f"WHERE {are_wanted} GROUP BY ALL",
            [name for (name,) in holding],
            query_ids=query_ids,
            doc_ids=doc_ids,
        )
        return {(query, document): text for query, document, text in found if text is not None}

    def _source(self, text: str) -> tuple[list[str], str, str]:
        """Say which files hold a column of texts, and the quoted names of their ids."""
        columns = self._columns
        if text in columns.pass_through:
            return self._outputs, "query_id", "doc_id"
        return self._inputs, quote_name(columns.query_id), quote_name(columns.doc_id)

    def _select(
        self, statement: str, files: Sequence[str], **parameters: Sequence[str]
    ) -> list[tuple[str, ...]]:
        if not files:
            return []
        values = {name: list(value) for name, value in parameters.items()}
        try:
            return self._connection.execute(
                statement, {"files": [glob.escape(path) for path in files], **values}
            ).fetchall()
        except duckdb.Error:
            return []
