"""Which columns of a shard mean what, and whether their types can be used."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from rgpt_batch.config.options import ColumnNames
from rgpt_batch.errors import ShardError

ALIASES: dict[str, tuple[str, ...]] = {
    "query_id": ("query_id", "qid", "query-id"),
    "doc_id": ("doc_id", "docno", "docid", "pid", "corpus-id"),
    "query": ("query", "query_text"),
    "document": ("document", "text", "passage", "doc"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The input columns of a job, by their names in the shards."""

    query_id: str
    doc_id: str
    query: str
    document: str
    pass_through: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        """The columns that are read, each once."""
        names = (self.query_id, self.doc_id, self.query, self.document, *self.pass_through)
        return list(dict.fromkeys(names))


def resolve_columns(
    schema: pa.Schema, names: ColumnNames, pass_through: Sequence[str], shard: str
) -> Columns:
    """Find the columns of one shard and check their types.

    Raises:
        ShardError: A column is missing, ambiguous, or of a type that cannot be used.
    """
    chosen = {role: _find(schema, role, name, shard) for role, name in names.model_dump().items()}
    for role, name in chosen.items():
        _check_type(schema, role, name, shard)
    for name in pass_through:
        if name not in schema.names:
            raise ShardError(
                f"{shard}: no column '{name}' to pass through. It has: {', '.join(schema.names)}."
            )
        _check_unique(schema, name, shard)
    return Columns(**chosen, pass_through=tuple(pass_through))


def check_same_columns(first: Columns, other: Columns, first_shard: str, shard: str) -> None:
    """Raise ShardError where two shards of a job name their columns differently."""
    if other == first:
        return
    theirs = asdict(other)
    for role, name in asdict(first).items():
        if (found := theirs[role]) != name:
            raise ShardError(
                f"{shard}: column '{found}' holds the {role}, but '{name}' does in {first_shard}. "
                f"Rename one, or set input.columns.{role}."
            )


def hits(names: Collection[str], groups: Iterable[Sequence[str]]) -> list[str]:
    """Return the columns that have one of a role's names.

    Args:
        names: All columns.
        groups: The role's names, best ones first: a later group counts where no earlier one has a
            hit.
    """
    found = next(filter(None, ([n for n in group if n in names] for group in groups)), [])
    # PyTerrier numbers its documents in `docid`, beside the real id in `docno`.
    return [n for n in found if n != "docid"] if "docno" in found else found


def missing_column_fix(file: str, names: Collection[str], fix: str) -> str:
    """Return what to do about a column that a file lacks.

    Where a folder is named `column=value`, as Hive does, that is told: values in names are not
    read, since nobody can tell 7 from "7" and "007" there.

    Args:
        file: Its path.
        names: What the column may be called.
        fix: What to do in all other cases.
    """
    for folder in file.split("/")[:-1]:
        if folder.partition("=")[0] in names and "=" in folder:
            return f"The folder's name '{folder}' is not read: write the column into the files."
    return fix


def _find(schema: pa.Schema, role: str, name: str | None, shard: str) -> str:
    fix = f"Set input.columns.{role} to the column's name."
    found = hits(schema.names, [(name,) if name else ALIASES[role]])
    if not found:
        wanted = f"column '{name}'" if name else f"{role} column ({', '.join(ALIASES[role])})"
        fix = missing_column_fix(shard, [name] if name else ALIASES[role], fix)
        raise ShardError(f"{shard}: no {wanted}. It has: {', '.join(schema.names)}. {fix}")
    if len(found) > 1:
        raise ShardError(f"{shard}: {' and '.join(found)} could both be the {role}. {fix}")
    _check_unique(schema, found[0], shard)
    return found[0]


def _check_unique(schema: pa.Schema, name: str, shard: str) -> None:
    if schema.names.count(name) > 1:
        raise ShardError(f"{shard}: column '{name}' exists twice. Rename one of them.")


def _check_type(schema: pa.Schema, role: str, name: str, shard: str) -> None:
    column_type = schema.field(name).type
    value_type = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
    text = (
        pa.types.is_string(value_type)
        or pa.types.is_large_string(value_type)
        or pa.types.is_string_view(value_type)
    )
    # A column that holds nulls alone has no type of its own; its rows are rejected one by one.
    if text or pa.types.is_null(value_type):
        return
    if role.endswith("_id") and pa.types.is_integer(value_type):
        return
    expected = "string or integer" if role.endswith("_id") else "string"
    raise ShardError(
        f"{shard}: column '{name}' is {column_type}, expected {expected}. "
        f"Cast it, or set input.columns.{role} to another column."
    )
