"""TREC runs and relevance judgements (qrels).

A run has one line per ranked document, `query_id Q0 doc_id rank score tag`. trec_eval ignores the
rank: it sorts by score in float32, and where scores are equal puts the larger doc_id first.

Qrels have one line per judgement, `query_id iteration doc_id relevance`. BEIR writes them as three
tab-separated columns below a header, `query-id  corpus-id  score`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.readers.numerals import MAX_SCORE, is_score, parse_number
from rgpt_batch.importing.readers.lines import read_lines

RUN_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string()),
        pa.field("doc_id", pa.string()),
        pa.field("score", pa.float64()),
    ]
)

Qrels = dict[str, dict[str, int]]
"""Relevance by query_id and doc_id; 0 and below is not relevant."""

_BATCH_LINES = 100_000
# Where one float32 step would be a denormal number, which some readers take for zero.
_SMALLEST_STEP = 1e-9


def read_run(path: str) -> Iterator[pa.RecordBatch]:
    """Read a TREC run as record batches in RUN_SCHEMA, in the order of its lines.

    Raises:
        ShardError: The file cannot be read, a line is malformed, or a score not finite in float32.
    """
    rows: list[tuple[str, str, float]] = []
    for number, line in read_lines(path):
        try:
            query_id, _, doc_id, _, text, _ = line.split()
            score = parse_number(text)
        except ValueError as error:
            raise ShardError(
                f"{path}:{number}: expected `query_id Q0 doc_id rank score tag`, found "
                f"`{line.strip()[:80]}`. Give a TREC run or a Parquet file."
            ) from error
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


def _to_batch(rows: list[tuple[str, str, float]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.record_batch(list(map(list, columns)), schema=RUN_SCHEMA)


def write_run(rows: Iterable[tuple[str, str, int, float | None]], path: Path, tag: str) -> int:
    """Write a TREC run whose order no reader can mistake; returns the number of lines.

    Written scores strictly decrease within a query even as float32: a score that is not below the
    line above (a tie, or a rejected pair, which has none) is written one step lower. So
    trec_eval, whatever its rule for ties, ranks the file as it stands. Other scores are exact to
    float32.

    Args:
        rows: query_id, doc_id, rank and score, by query and then by rank.
        path: The file to write.
        tag: Name of the run, the last column.

    Raises:
        ConfigError: An id or the tag is empty or holds white space, or a score is too large.
    """
    _check_word(tag, "tag")
    num_lines = 0
    above: float | None = None
    last_query_id = None
    with path.open("w", encoding="utf-8") as stream:
        for query_id, doc_id, rank, score in rows:
            if query_id != last_query_id:
                _check_word(query_id, "query id")
                last_query_id, above = query_id, None
            _check_word(doc_id, "document id")
            if score is not None and not is_score(score):
                raise ConfigError(
                    f"the score {score:g} of query '{query_id}' and document '{doc_id}' does not "
                    f"fit a TREC run, whose readers take float32 (at most {MAX_SCORE:.2g}). Write "
                    "Parquet instead: --format parquet."
                )
            above = _written_score(score, above)
            stream.write(f"{query_id} Q0 {doc_id} {rank} {above:.9g} {tag}\n")
            num_lines += 1
    return num_lines


def _written_score(score: float | None, above: float | None) -> float:
    """Return the score as a float32 value below the one of the line above."""
    if above is None:
        return 0.0 if score is None else float(np.float32(score))
    if score is not None and (rounded := float(np.float32(score))) < above:
        return rounded
    step = np.nextafter(np.float32(above), np.float32(-math.inf))
    return float(min(step, np.float32(above - _SMALLEST_STEP)))


def _check_word(word: str, what: str) -> None:
    if len(word.split()) != 1 or word != word.strip():
        raise ConfigError(
            f"{what} '{word}' is empty or holds white space, so a TREC run cannot name it. "
            "Write Parquet instead: --format parquet."
        )


def read_qrels(path: str) -> Qrels:
    """Read relevance judgements: TREC's four columns, or BEIR's three with their header.

    Raises:
        ShardError: The file is missing, empty or malformed, or judges a pair twice.
    """
    qrels: Qrels = {}
    is_beir = False
    for number, line in read_lines(path):
        fields = line.split("\t")
        if number == 1 and len(fields) == 3 and not _is_integer(fields[2]):
            is_beir = True
            continue
        try:
            if is_beir:
                query_id, doc_id, relevance = fields
            else:
                query_id, _, doc_id, relevance = line.split()
            grade = _grade(relevance)
        except ValueError as error:
            raise ShardError(
                f"{path}:{number}: expected `query_id 0 doc_id relevance`, or BEIR's three columns "
                f"below their header, found `{line.strip()[:80]}`. Correct the line."
            ) from error
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


def _grade(text: str) -> int:
    if not text.isascii() or "_" in text:
        raise ValueError(f"not a grade: {text!r}")
    return int(text)


def _is_integer(text: str) -> bool:
    try:
        _grade(text)
    except ValueError:
        return False
    return True
