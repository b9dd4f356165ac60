"""Scored pairs as DuckDB tables, so that ranking and comparing work out of core.

A table of pairs has one row for every (query_id, doc_id) and the columns

    query_id, doc_id   VARCHAR, never null
    score              a number; null where the pair was rejected
    first_stage_score  DOUBLE; null where no first stage was asked for or it lacks the pair
    is_duplicate       whether the input gave the pair several scores
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import duckdb
import pyarrow as pa

from rgpt_batch.database import quote_name
from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.numerals import MAX_SCORE
from rgpt_batch.importing.readers.relations import check_case, check_types
from rgpt_batch.importing.readers.trec import read_run
from rgpt_batch.importing.readers.unfit import refuse_unfit
from rgpt_batch.input.columns import ALIASES, hits, missing_column_fix
from rgpt_batch.input.rows import database_source, read_schema, read_schemas

Duplicates = Literal["error", "max"]


def best_first(score: str = "score") -> str:
    """Return the SQL of trec_eval's order: equal scores by doc_id, descending; rejected pairs last.

    Every ranking that is written, cut or evaluated has this order.
    """
    return f"{score} DESC NULLS LAST, doc_id DESC"


def load_pairs(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    files: Sequence[str],
    *,
    score: str = "score",
    first_stage: str | None = None,
    option: str = "--score-column",
    duplicates: Duplicates = "error",
    query_ids: Sequence[str] | None = None,
) -> int:
    """Load Parquet files as a table of pairs; ids by any of their usual names.

    Rows without an id, whose page was unreadable when they were scored, are left out.

    Args:
        connection: Where the table is made.
        table: Its name.
        files: What to load.
        score: The column to load as `score`.
        first_stage: The column to load as `first_stage_score`.
        option: What messages call the option that names the column of scores.
        duplicates: What to do about a pair that has several scores: `error`, or `max` to keep the
            highest, which for passages that share their document's id is MaxP (Dai and Callan,
            SIGIR 2019).
        query_ids: Leave out all other queries.

    Returns:
        How many rows had no id.

    Raises:
        ShardError: A column is missing or not numeric, a score is not finite in float32, or a pair
            has several scores.
    """
    schema = read_schema(files[0])
    id_names = [_find_id(schema, role, files[0]) for role in ("query_id", "doc_id")]
    ids = [quote_name(name) for name in id_names]
    columns = {"score": score, "first_stage_score": first_stage}
    values = {}
    for role, name in columns.items():
        if name is not None:
            chosen_by = option if role == "score" else "--first-stage-column"
            _check_numeric(schema, name, files[0], chosen_by)
        values[role] = "NULL::DOUBLE" if name is None else quote_name(name)
    parameters: dict[str, Any] = {}
    used = dict.fromkeys([*id_names, *filter(None, columns.values())])
    _check_files(
        files, schema, dict(zip(("query_id", "doc_id"), id_names, strict=True)), list(used)
    )
    wanted = pa.schema([schema.field(name) for name in used])
    source = database_source(connection, f"{table}_rows", files, wanted)
    has_ids = " AND ".join(f"{name} IS NOT NULL" for name in ids)
    num_without_ids: int = connection.execute(
        f"SELECT count(*) FROM {source} WHERE NOT ({has_ids})"
    ).fetchall()[0][0]
    if query_ids is not None:
        has_ids += f" AND {ids[0]}::VARCHAR IN (SELECT unnest($query_ids))"
        parameters["query_ids"] = list(query_ids)
    connection.execute(
        f"CREATE TEMP TABLE {table} AS "
        f"SELECT {ids[0]}::VARCHAR AS query_id, {ids[1]}::VARCHAR AS doc_id, "
        f"max({values['score']}) AS score, "
        f"max({values['first_stage_score']})::DOUBLE AS first_stage_score, "
        f"count({values['score']}) > 1 AS is_duplicate "
        f"FROM {source} WHERE {has_ids} GROUP BY ALL",
        parameters,
    )
    where = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} other files"
    for role, name in columns.items():
        if name is not None and _has_unfit(connection, table, role):
            refuse_unfit(files, name, largest=MAX_SCORE, why="float32")
    if duplicates == "error":
        _check_no_duplicates(connection, table, where)
    return num_without_ids


def load_run(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    path: str,
    *,
    duplicates: Duplicates = "error",
) -> None:
    """Load a TREC run as a table of pairs.

    Args:
        connection: Where the table is made.
        table: Its name.
        path: The run.
        duplicates: See load_pairs.

    Raises:
        ShardError: A line is malformed, a score not finite, or a pair given twice.
    """
    connection.execute(
        f"CREATE TEMP TABLE {table}_lines (query_id VARCHAR, doc_id VARCHAR, score DOUBLE)"
    )
    for batch in read_run(path):
        connection.register("batch", pa.Table.from_batches([batch]))
        connection.execute(f"INSERT INTO {table}_lines FROM batch")
    connection.execute(
        f"CREATE TEMP TABLE {table} AS SELECT query_id, doc_id, max(score) AS score, "
        f"NULL::DOUBLE AS first_stage_score, count(*) > 1 AS is_duplicate "
        f"FROM {table}_lines GROUP BY ALL"
    )
    connection.execute(f"DROP TABLE {table}_lines")
    if duplicates == "error":
        _check_no_duplicates(connection, table, path)


def _check_no_duplicates(connection: duckdb.DuckDBPyConnection, table: str, where: str) -> None:
    found = connection.execute(
        "SELECT query_id, doc_id, count(*) OVER () AS num_duplicates "
        f"FROM {table} WHERE is_duplicate ORDER BY ALL LIMIT 1"
    ).fetchall()
    for query_id, doc_id, num_duplicates in found:
        raise ShardError(
            f"{where}: {num_duplicates:,} pairs have several scores, e.g. query '{query_id}' with "
            f"document '{doc_id}'. Remove the repeated rows; `rank --duplicates max` keeps the "
            "highest score of each pair."
        )


def _has_unfit(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> bool:
    """Whether a score is NaN or more than float32 holds."""
    found = connection.execute(
        f"SELECT count(*) FROM {table} "
        f"WHERE NOT isfinite({column}::DOUBLE) OR abs({column}::DOUBLE) > {MAX_SCORE!r}"
    ).fetchall()
    return bool(found[0][0])


def _find_id(schema: pa.Schema, role: str, file: str) -> str:
    # Scored files may pass a column of another usual name through.
    found = hits(schema.names, [(alias,) for alias in ALIASES[role]])
    if not found:
        raise ShardError(
            f"{file}: no {role} column ({', '.join(ALIASES[role])}). It has: "
            f"{', '.join(schema.names)}. "
            f"{missing_column_fix(file, ALIASES[role], 'Rename the column.')}"
        )
    return found[0]


def _check_files(
    files: Sequence[str], first: pa.Schema, ids: Mapping[str, str], used: Sequence[str]
) -> None:
    """Check that all files hold the same columns, under names that DuckDB can tell apart.

    DuckDB reads all files with the types of the first: 1.4 would become 1, and "009" 9.
    """
    for file, schema in read_schemas(files).items():
        for name in used:
            if name not in schema.names:
                raise ShardError(f"{file}: no column '{name}', but {files[0]} has one. Add it.")
            check_case(schema, name, file)
            if (found := schema.field(name).type) != (wanted := first.field(name).type):
                raise ShardError(
                    f"{file}: column '{name}' is {found}, but {wanted} in {files[0]}. Cast one of "
                    "them."
                )
        check_types(schema, ids, file)


def _check_numeric(schema: pa.Schema, name: str, file: str, option: str) -> None:
    if name not in schema.names:
        raise ShardError(
            f"{file}: no column '{name}'. It has: {', '.join(schema.names)}. Name one of these "
            f"with {option}, or pass the column through when scoring."
        )
    found = schema.field(name).type
    if not (pa.types.is_floating(found) or pa.types.is_integer(found)):
        raise ShardError(f"{file}: column '{name}' is {found}, expected a number. Cast it.")
