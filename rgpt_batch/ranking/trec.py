"""TREC runs out; importing.readers.trec reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.readers.numerals import MAX_SCORE, is_score

# Where one float32 step would be a denormal number, which some readers take for zero.
_SMALLEST_STEP = 1e-9


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
