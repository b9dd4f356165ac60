"""What every source of pairs comes down to: candidates, queries and documents in Parquet files.

A source reads somebody's format and says where ids and texts are. Parquet stays where it is; text
files are written to Parquet once (see spool.py). import_pairs.py joins the three.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa

from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.input.columns import ALIASES, hits, missing_column_fix

# The columns of pair shards that hold what the first stage said.
SCORE = "first_stage_score"
RANK = "first_stage_rank"
# Where a row of a text file stands, so that messages can name the line.
LINE = "line"

# Names to look for, best ones first: a later group counts where no earlier one has a hit.
Names = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One of the three relations: what its columns are for, and which names they may have.

    Attributes:
        noun: What messages call such a table.
        required: Names by role.
        optional: Names by role; the table may lack them.
    """

    noun: str
    required: Mapping[str, Names]
    optional: Mapping[str, Names]


def _names(role: str, *further: tuple[str, ...]) -> Names:
    return (ALIASES[role], *further)


# Names of keys that are words of texts as well.
GENERIC_ID = ("_id", "id")
# In BEIR's layout the key is called so, whatever else a record holds.
_BEIR_ID = ("_id",)

QUERIES = Kind(
    noun="table of queries",
    required={
        "query_id": _names("query_id", GENERIC_ID),
        "query": _names("query", ("text",)),
    },
    optional={},
)

# `docid` counts where there is nothing better.
_DOC_ID = (tuple(name for name in ALIASES["doc_id"] if name != "docid"), ("docid",))

DOCUMENTS = Kind(
    noun="corpus",
    required={
        "doc_id": (*_DOC_ID, GENERIC_ID),
        "document": _names("document", ("contents",)),
    },
    optional={"title": (("title",),)},
)

BEIR_QUERIES = replace(QUERIES, required={**QUERIES.required, "query_id": (_BEIR_ID,)})
BEIR_DOCUMENTS = replace(DOCUMENTS, required={**DOCUMENTS.required, "doc_id": (_BEIR_ID,)})

PAIRS = Kind(
    noun="table of pairs",
    required={"query_id": _names("query_id"), "doc_id": _DOC_ID},
    optional={
        "query": _names("query"),
        "document": _names("document"),
        SCORE: ((SCORE,), ("score",)),
        RANK: ((RANK,), ("rank",)),
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A relation in Parquet files.

    Attributes:
        origin: What messages call it: the path that the user gave.
        paths: The files; one may lack columns that are optional.
        columns: Names of the files' columns by role; LINE is one of them for text files.
        schema: Names and types of these columns.
    """

    origin: str
    paths: tuple[str, ...]
    columns: Mapping[str, str]
    schema: pa.Schema

    def without(self, *roles: str) -> Table:
        """Return the table as if it had no such columns."""
        kept = {role: name for role, name in self.columns.items() if role not in roles}
        return replace(self, columns=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """What there is to join.

    Attributes:
        candidates: One row per pair.
        queries: None where the candidates hold the text of their query.
        documents: None where the candidates hold the text of their document.
    """

    candidates: Table
    queries: Table | None
    documents: Table | None

    @property
    def tables(self) -> dict[str, Table]:
        """The tables that there are, by name."""
        named = {
            "candidates": self.candidates,
            "queries": self.queries,
            "documents": self.documents,
        }
        return {name: table for name, table in named.items() if table is not None}


class Source(Protocol):
    """Somebody's format."""

    def open(self, spool: Spool) -> Relations:
        """Find the three relations; what is not Parquet is written to the spool.

        Raises:
            ConfigError, ShardError: A file is missing, unreadable or malformed.
        """
        ...


def find_columns(names: Collection[str], kind: Kind, where: str) -> dict[str, str]:
    """Return the columns' names by role.

    Raises:
        ShardError: A column is missing or ambiguous.
    """
    found: dict[str, str] = {}
    for role, groups in {**kind.required, **kind.optional}.items():
        named = hits(names, groups)
        if named and any("_id" in group for group in groups) and "_id" in names:
            # BEIR's key; beside another one, nobody can tell which of them is meant.
            named = list(dict.fromkeys([*named, "_id"]))
        if len(named) > 1:
            raise ShardError(
                f"{where}: {' and '.join(named)} could both be the {role}. Rename one."
            )
        if named:
            if list(names).count(named[0]) > 1:
                raise ShardError(f"{where}: column '{named[0]}' exists twice. Rename one of them.")
            found[role] = named[0]
        elif role in kind.required:
            known = [name for group in groups for name in group]
            raise ShardError(
                f"{where}: the {kind.noun} has no {role} column ({', '.join(known)}). "
                f"It has: {', '.join(names)}. {missing_column_fix(where, known, 'Rename one.')}"
            )
    return found


def find_common_columns(
    schemas: Mapping[str, pa.Schema], kind: Kind
) -> tuple[dict[str, str], pa.Schema]:
    """Find the columns of files that make up one table; each has to have the required ones.

    Args:
        schemas: The files' columns, by their paths.
        kind: What the table is.

    Returns:
        Names by role, as find_columns gives them, and the columns' types.

    Raises:
        ShardError: A column is missing, ambiguous, of a wrong type, or not of the same everywhere.
    """
    names = dict.fromkeys(name for schema in schemas.values() for name in schema.names)
    first = next(iter(schemas))
    columns = find_columns(names, kind, first)
    origins: dict[str, str] = {}
    for file, schema in schemas.items():
        alone = find_columns(schema.names, kind, file)
        for role, name in columns.items():
            if name in schema.names:
                continue
            other = next(path for path in schemas if name in schemas[path].names)
            # DuckDB would take them for the same.
            alike = [n for n in schema.names if n.casefold() == name.casefold()]
            if found := alone.get(role) or next(iter(alike), None):
                raise ShardError(
                    f"{file}: column '{found}', but in {other} it is '{name}'. Rename one."
                )
            if role in kind.required:
                raise ShardError(f"{file}: no column '{name}', but {other} has one. Add it.")
        own = {role: name for role, name in columns.items() if name in schema.names}
        check_types(schema, own, file)
        for name in own.values():
            # DuckDB reads all files with the types of the first: "007" would become 7.
            origin = origins.setdefault(name, file)
            if schema.field(name).type != schemas[origin].field(name).type:
                raise ShardError(
                    f"{file}: column '{name}' is {schema.field(name).type}, but "
                    f"{schemas[origin].field(name).type} in {origin}. Cast one of them."
                )
    return columns, pa.schema(
        [schemas[origins[name]].field(name).remove_metadata() for name in columns.values()]
    )


def check_case(schema: pa.Schema, name: str, where: str) -> None:
    """Raise ShardError where another column's name differs in case alone; to DuckDB it is one."""
    if sum(other.casefold() == name.casefold() for other in schema.names) > 1:
        raise ShardError(
            f"{where}: two columns are called '{name}', but for upper and lower case. Rename one."
        )


def check_types(schema: pa.Schema, columns: Mapping[str, str], where: str) -> None:
    """Raise ShardError where a column is not of a type that its role can have."""
    for role, name in columns.items():
        check_case(schema, name, where)
        found = schema.field(name).type
        plain = found.value_type if pa.types.is_dictionary(found) else found
        is_text = (
            pa.types.is_string(plain)
            or pa.types.is_large_string(plain)
            or pa.types.is_string_view(plain)
        )
        if role.endswith("_id"):
            expected, fits = "string or integer", is_text or pa.types.is_integer(plain)
        elif role == RANK:
            expected, fits = "integer", pa.types.is_integer(plain)
        elif role == SCORE:
            expected, fits = "a number", pa.types.is_integer(plain) or pa.types.is_floating(plain)
        else:
            expected, fits = "string", is_text or pa.types.is_null(plain)
        if not fits:
            raise ShardError(f"{where}: column '{name}' is {found}, expected {expected}. Cast it.")
