"""TREC runs and relevance judgements (qrels), read as trec_eval reads them.

A run has one line per ranked document, `query_id Q0 doc_id rank score tag`, or as MS MARCO has it
`query_id doc_id rank`. trec_eval ignores the rank: it sorts by score in float32, and where scores
are equal puts the larger doc_id first.

Qrels have one line per judgement, `query_id iteration doc_id relevance`. BEIR writes them as three
tab-separated columns below a header, `query-id  corpus-id  score`.

Fields are separated by tabs or blanks. In a line of as many tab-separated fields as the format has,
blanks belong to the values. A tag may hold blanks. Lines that begin with # are comments.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from rgpt_batch.errors import ShardError
from rgpt_batch.importing.readers.lines import read_lines
from rgpt_batch.importing.readers.numerals import MAX_SCORE, is_score, parse_number
from rgpt_batch.importing.readers.relations import RANK, SCORE

RUN_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string()),
        pa.field("doc_id", pa.string()),
        pa.field("score", pa.float64()),
    ]
)

Qrels = dict[str, dict[str, int]]
"""Relevance by query_id and doc_id; 0 and below is not relevant."""

Line = tuple[int, str]

_BATCH_LINES = 100_000
_TREC = {"query_id": 0, "doc_id": 2, RANK: 3, SCORE: 4}
_MS_MARCO = {"query_id": 0, "doc_id": 1, RANK: 2}
_LAYOUTS = {6: _TREC, 3: _MS_MARCO}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLines:
    """The lines of a run.

    Attributes:
        layout: Where a role's field stands, counted from 0.
        rows: Line numbers and fields.
    """

    layout: Mapping[str, int]
    rows: Iterator[tuple[int, list[str]]]


def open_run_lines(path: str) -> RunLines:
    """Tell TREC's run from MS MARCO's by its first line, and split all lines into fields.

    Raises:
        ShardError: The file cannot be read or holds no line, or a line is malformed.
    """
    lines = _without_comments(path, _is_run_line)
    first = next(lines, None)
    if first is None:
        raise ShardError(f"{path}: the run has no lines. Give another file.")
    num_fields = next((n for n in _LAYOUTS if _fields(first[1], n)), None)
    if num_fields is None:
        raise _malformed_run(path, *first)

    def rows() -> Iterator[tuple[int, list[str]]]:
        for number, text in itertools.chain([first], lines):
            fields = _fields(text, num_fields)
            if fields is None:
                raise _malformed_run(path, number, text)
            yield number, fields

    return RunLines(layout=_LAYOUTS[num_fields], rows=rows())


def read_run(path: str) -> Iterator[pa.RecordBatch]:
    """Read a run as record batches in RUN_SCHEMA, in the order of its lines.

    Where lines have no score, it is the negative rank.

    Raises:
        ShardError: The file cannot be read, a line is malformed, or a score not finite in float32.
    """
    run = open_run_lines(path)
    sign, role = (1, SCORE) if SCORE in run.layout else (-1, RANK)
    places = [run.layout[name] for name in ("query_id", "doc_id", role)]
    rows: list[tuple[str, str, float]] = []
    for number, fields in run.rows:
        query_id, doc_id, text = (fields[place] for place in places)
        try:
            score = sign * parse_number(text)
        except ValueError as error:
            raise _malformed_run(path, number, " ".join(fields)) from error
        if not query_id or not doc_id:
            raise _malformed_run(path, number, " ".join(fields))
        if not is_score(score):
            raise ShardError(
                f"{path}:{number}: the score is {text}, expected a finite number of at most "
                f"{MAX_SCORE:.2g}, which float32 can hold. Correct the line."
            )
        rows.append((query_id, doc_id, score))
        if len(rows) == _BATCH_LINES:
            yield _to_batch(rows)
            rows = []
    yield _to_batch(rows)


def read_qrels(path: str) -> Qrels:
    """Read relevance judgements: TREC's four columns, or BEIR's three with their header.

    Raises:
        ShardError: The file is missing, empty or malformed, or judges a pair twice.
    """
    qrels: Qrels = {}
    num_fields = 4
    lines = _without_comments(path, lambda text: _is_grade((_fields(text, num_fields) or [""])[-1]))
    for place, (number, text) in enumerate(lines):
        tabbed = text.split("\t")
        if place == 0 and len(tabbed) == 3 and not _is_number(tabbed[2]):
            num_fields = 3
            continue
        fields = _fields(text, num_fields)
        if fields is None or not (_is_grade(fields[-1]) and fields[0] and fields[-2]):
            raise ShardError(
                f"{path}:{number}: expected `query_id 0 doc_id relevance`, or BEIR's three columns "
                f"below their header, found `{text.strip()[:80]}`. Correct the line."
            )
        query_id, doc_id, grade = fields[0], fields[-2], int(fields[-1])
        judged = qrels.setdefault(query_id, {})
        if doc_id in judged:
            raise ShardError(
                f"{path}:{number}: query '{query_id}' and document '{doc_id}' are judged twice. "
                "Delete one of the lines."
            )
        judged[doc_id] = grade
    if not qrels:
        raise ShardError(f"{path}: holds no judgement. Give a file of qrels.")
    return qrels


def _without_comments(path: str, reads: Callable[[str], bool]) -> Iterator[Line]:
    """Yield the lines that are no comments.

    Args:
        path: The file.
        reads: Whether a text is a line of the format. An id may begin with #, too.
    """
    for number, text in read_lines(path):
        if not text.startswith("#"):
            yield number, text
        elif reads(text):
            raise ShardError(
                f"{path}:{number}: begins with #, as a comment does, but reads like a line of the "
                f"format: `{text.strip()[:80]}`. Delete it; or give its id another first character."
            )


def _fields(text: str, num_fields: int) -> list[str] | None:
    """Return the fields of a line; None where it has another number of them."""
    fields = text.split("\t")
    if len(fields) != num_fields:
        # Only a run's tag, which comes last, is free text.
        fields = text.split(None, num_fields - 1) if num_fields == 6 else text.split()
    return fields if len(fields) == num_fields else None


def _is_run_line(text: str) -> bool:
    """Whether a text has the fields of a line, and a number where the order is taken from."""
    for num_fields, layout in _LAYOUTS.items():
        fields = _fields(text, num_fields)
        if fields and _is_number(fields[layout.get(SCORE, layout[RANK])]):
            return True
    return False


def _is_grade(text: str) -> bool:
    """Whether a text is a whole number; Python reads `1_0` and digits of other scripts, too."""
    try:
        int(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        parse_number(text)
        return True
    return False


def _to_batch(rows: list[tuple[str, str, float]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.record_batch(list(map(list, columns)), schema=RUN_SCHEMA)


def _malformed_run(path: str, number: int, text: str) -> ShardError:
    return ShardError(
        f"{path}:{number}: expected `query_id Q0 doc_id rank score tag` or `query_id doc_id rank`, "
        f"found `{text.strip()[:80]}`. Correct the line; a table of pairs with named columns is "
        "read from Parquet, or by `import pairs`."
    )
