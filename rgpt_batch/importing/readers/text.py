"""JSON Lines and tab-separated text, row by row; every row keeps the number of its line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.lines import read_lines, read_records
from rgpt_batch.importing.readers.numerals import parse_number
from rgpt_batch.importing.readers.relations import (
    GENERIC_ID,
    LINE,
    RANK,
    SCORE,
    Kind,
    Table,
    find_columns,
)
from rgpt_batch.importing.readers.spool import Spool

# What says which keys there are, until a later record has others.
_RECORDS_FOR_KEYS = 100
_MAX_RANK = 2**31 - 1


def open_json_lines(path: str, kind: Kind, spool: Spool) -> Table:
    """Write a file of one JSON object per line to the spool.

    A key counts wherever it appears first: the file is read once more, from the beginning, if a
    later record has one that changes which keys hold what.

    Raises:
        ShardError: The file is unreadable, or a line is not what it should be.
    """
    keys: dict[str, None] = {}
    while True:
        try:
            return _read_json_lines(path, kind, spool, keys)
        except _KeyAppeared as appeared:
            if not Path(path).is_file():
                raise ShardError(
                    f"{path}:{appeared.number}: '{appeared.key}' appears here for the first time, "
                    "and a pipe cannot be read twice. Give a file, or such a record first."
                ) from None
            spool.report(f"reading {path} again, for '{appeared.key}'")


class _KeyAppeared(Exception):
    """A key that earlier records lack holds something."""

    def __init__(self, key: str, number: int) -> None:
        super().__init__(key, number)
        self.key, self.number = key, number


def _read_json_lines(path: str, kind: Kind, spool: Spool, keys: dict[str, None]) -> Table:
    """Do it with the keys that are known; those that are found are added to them."""
    records = read_records(path)
    first = list(itertools.islice(records, _RECORDS_FOR_KEYS))
    keys.update(dict.fromkeys(key for _, record in first for key in record))
    columns = find_columns(keys, kind, path)

    def rows() -> Iterator[tuple[int, Sequence[Any]]]:
        for number, record in itertools.chain(first, records):
            if not record.keys() <= keys.keys():
                keys.update(dict.fromkeys(record))
                found = find_columns(keys, kind, f"{path}:{number}")
                for role, name in columns.items():
                    if found[role] != name:
                        raise ShardError(
                            f"{path}:{number}: '{found[role]}' holds the {role}, but '{name}' does "
                            "in the lines before. Rename one."
                        )
                if changed := set(found.values()) - set(columns.values()):
                    raise _KeyAppeared(min(changed), number)
            yield number, [record.get(key) for key in columns.values()]

    return spool_rows(path, columns, rows(), spool)


def open_tab_separated(
    path: str, kind: Kind, spool: Spool, *, roles: Sequence[str] | None = None
) -> Table:
    """Write a tab-separated file to the spool.

    Quotes are characters like any other; MS MARCO's texts have them.

    Args:
        path: The file.
        kind: What the table is. A file without header has the required columns alone, in their
            order.
        spool: Where to write.
        roles: The columns of a file that has no header.

    Raises:
        ShardError: The file is unreadable, or a line is not what it should be.
    """
    lines = read_lines(path)
    first = next(lines, None)
    names = [] if first is None else first[1].split("\t")
    if roles is None and _is_header(names, kind):
        try:
            columns = find_columns(names, kind, path)
        except ShardError as error:
            raise ShardError(
                f"{error} If the first line is a row, put a header above it: "
                f"`{' '.join(kind.required)}`, with tabs between."
            ) from error
        positions = [names.index(name) for name in columns.values()]
    else:
        columns = {role: role for role in roles or kind.required}
        if first is not None:
            lines = itertools.chain([first], lines)
            if roles is None:
                spool.report(f"{path}: without header; `{first[1][:80]}` is its first row")
        names, positions = list(columns), list(range(len(columns)))

    def rows() -> Iterator[tuple[int, Sequence[Any]]]:
        for number, line in lines:
            fields = line.split("\t")
            if len(fields) != len(names):
                raise ShardError(
                    f"{path}:{number}: {len(fields)} tab-separated fields, expected {len(names)}. "
                    "Correct the line; a file with other columns than "
                    f"{' and '.join(kind.required)} needs a header that names them."
                )
            yield number, [fields[position] for position in positions]

    return spool_rows(path, columns, rows(), spool)


def _is_header(fields: Sequence[str], kind: Kind) -> bool:
    """Whether the first line of a table names its columns, or tries to.

    It does where it holds the name of an id. A text may consist of that word, too: a row whose text
    is `id`, below other ids, is a row unless the line names all columns, in whatever order.
    """
    id_roles = [role for role in kind.required if role.endswith("_id")]
    known = {name for role in id_roles for group in kind.required[role] for name in group}
    places = [place for place, field in enumerate(fields) if field.strip().casefold() in known]
    roles = list(kind.required)
    may_be_row = len(fields) == len(roles) and not any(roles[p] in id_roles for p in places)
    if places and may_be_row and {fields[place] for place in places} <= set(GENERIC_ID):
        try:
            find_columns(fields, kind, "")
        except ShardError:
            return False
    return bool(places)


def spool_rows(
    origin: str,
    columns: Mapping[str, str],
    rows: Iterator[tuple[int, Sequence[Any]]],
    spool: Spool,
) -> Table:
    """Check the values of rows and write them to the spool.

    Args:
        origin: The file they come from.
        columns: What the values of a row are: what they are called there, by role.
        rows: A number, such as that of the line, and the values of each row.
        spool: Where to write.

    Raises:
        ShardError: A value is of a wrong type, or an id is missing.
    """
    types = {SCORE: pa.float64(), RANK: pa.int32()}
    schema = pa.schema(
        [(LINE, pa.int64())]
        + [(name, types.get(role, pa.string())) for role, name in columns.items()]
    )
    checked = (
        (
            number,
            *(
                _check(role, value, origin, number)
                for role, value in zip(columns, values, strict=True)
            ),
        )
        for number, values in rows
    )
    path = spool.write_rows(checked, schema, origin)
    return Table(origin=origin, paths=(path,), columns={LINE: LINE, **columns}, schema=schema)


def _check(role: str, value: Any, origin: str, number: int) -> str | int | float | None:
    """Return an id as a string, a text or number as it is; texts and numbers may be null."""
    if role.endswith("_id"):
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value:
            return _encodable(value, role, origin, number)
        raise ShardError(
            f"{origin}:{number}: {role} is {value!r}, expected a string. Give the row an id."
        )
    if value is None:
        return None
    if role in (SCORE, RANK):
        return _check_number(role, value, origin, number)
    if isinstance(value, str):
        return _encodable(value, role, origin, number)
    raise ShardError(
        f"{origin}:{number}: {role} is of type {type(value).__name__}, expected text. "
        "Correct the line."
    )


def _check_number(role: str, value: Any, origin: str, number: int) -> int | float:
    try:
        if isinstance(value, bool):
            raise TypeError("true and false are no numbers")
        # 1.0 is a rank, 1.5 is none.
        checked = parse_number(value) if isinstance(value, str) else float(value)
        fits = math.isfinite(checked) and (role == SCORE or checked.is_integer())
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits or (role == RANK and abs(checked) > _MAX_RANK):
        expected = "a whole number" if role == RANK else "a finite number"
        raise ShardError(
            f"{origin}:{number}: {role} is {value!r}, expected {expected}. Correct the line."
        )
    return int(checked) if role == RANK else checked


def _encodable(text: str, role: str, origin: str, number: int) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            # JSON can spell half of a surrogate pair, which is no character and has no UTF-8.
            raise ShardError(
                f"{origin}:{number}: {role} holds half of a surrogate pair, "
                f"{text[error.start]!a}, which is no character. Correct the line."
            ) from error
    return text
