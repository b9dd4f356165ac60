"""Rows that cannot be scored, and rows that only look as if they could not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs import Score

WritePairs = Callable[..., Path]

GOOD = ("when should a baby walk", "most children walk at twelve months")
LONE_SURROGATE = b"\xed\xa0\x80"


def strings(values: Sequence[bytes | None], type_: pa.DataType | None = None) -> pa.Array:
    """A string column that holds these bytes, valid UTF-8 or not."""
    type_ = type_ or pa.string()
    binary = pa.large_binary() if pa.types.is_large_string(type_) else pa.binary()
    buffers = pa.array(values, binary).buffers()
    if pa.types.is_string_view(type_):
        return pa.Array.from_buffers(pa.string(), len(values), buffers).cast(type_)
    return pa.Array.from_buffers(type_, len(values), buffers)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ((None, "a document"), "NULL_QUERY"),
        (("a query", None), "NULL_DOCUMENT"),
        ((None, None), "NULL_QUERY"),
        (("", "a document"), "EMPTY_QUERY"),
        ((" \t\n\u3000", "a document"), "EMPTY_QUERY"),
        (("far too long " * 1000, "a document"), "QUERY_TOO_LONG"),
    ],
)
def test_row_without_a_score_says_why_and_its_neighbours_are_scored(
    score_with_fake: Score,
    write_pairs: WritePairs,
    pair: tuple[str | None, str | None],
    reason: str,
) -> None:
    clean = score_with_fake(write_pairs([GOOD, GOOD, GOOD]), name="clean")
    scored = score_with_fake(write_pairs([GOOD, pair, GOOD]))
    assert scored.rows[0] == clean.rows[0]
    assert scored.rows[1] == {
        "query_id": "q1",
        "doc_id": "d1",
        "score": None,
        "sum_logprob": None,
        "num_query_tokens": None,
        "num_document_tokens": None,
        "num_dropped_document_tokens": None,
        "rejection": reason,
        "pair_hash": None,
    }
    assert scored.rows[2] == clean.rows[2]
    assert scored.summary.num_rejected == {reason: 1}
    assert scored.summary.exit_code == 0


def test_too_many_rejected_rows_end_with_exit_code_3(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs([GOOD] * 8 + [("", "a document")] * 2)
    at_limit = score_with_fake(path, overrides=("output.max_rejected_fraction=0.2",), name="a")
    above = score_with_fake(path, overrides=("output.max_rejected_fraction=0.19",), name="b")
    assert at_limit.summary.exit_code == 0
    assert above.summary.exit_code == 3
    assert "2 of 10 rows are rejected" in above.summary.problems[0]
    assert above.table.num_rows == 10


def test_column_of_nulls_alone_is_rejected_row_by_row(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    scored = score_with_fake(write_pairs(3, extra={"query": pa.nulls(3), "doc_id": pa.nulls(3)}))
    assert scored.column("rejection") == ["NULL_QUERY"] * 3
    assert scored.column("query_id") == ["q0", "q1", "q2"]
    assert scored.column("doc_id") == [None] * 3


def test_null_ids_are_kept_and_the_row_is_scored(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    ids = {"query_id": pa.array([None, "q"]), "doc_id": pa.array(["d", None])}
    scored = score_with_fake(write_pairs([GOOD, GOOD], extra=ids))
    assert scored.column("query_id") == [None, "q"]
    assert scored.column("doc_id") == ["d", None]
    assert scored.column("rejection") == [None, None]


def test_duplicate_ids_and_duplicate_rows_all_keep_their_row(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    ids = {"query_id": pa.array(["q"] * 4), "doc_id": pa.array(["d"] * 4)}
    scored = score_with_fake(write_pairs([GOOD, GOOD, ("other", "other"), GOOD], extra=ids))
    assert scored.column("doc_id") == ["d"] * 4
    first, second, other, last = scored.column("score")
    assert first == second == last != other


# Texts that are odd, but texts


def test_empty_document_is_scored_against_the_bare_template(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    row = score_with_fake(write_pairs([("a query", "")])).rows[0]
    assert row["rejection"] is None
    assert row["score"] < 0
    assert (row["num_document_tokens"], row["num_dropped_document_tokens"]) == (0, 0)


def test_document_of_a_million_characters_is_cut_to_the_limit(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    scored = score_with_fake(write_pairs([GOOD, ("a query", "lorem ipsum " * 84_000), GOOD]))
    row = scored.rows[1]
    assert row["rejection"] is None
    assert row["num_document_tokens"] + row["num_query_tokens"] < 2048
    assert row["num_document_tokens"] > 2000
    assert row["num_dropped_document_tokens"] > 100_000
    assert scored.summary.num_truncated_rows == 1
    assert scored.rows[0]["score"] == scored.rows[2]["score"]


@pytest.mark.parametrize(
    "text",
    [
        "nul \0 bytes \0",
        "متى يجب أن يمشي الطفل \u202e\u200f",
        "👩‍👩‍👧‍👦 emoji 🏳️‍🌈",
        "e\u0301 combining \u0300\u0301\u0302",
        "\ufeffbyte order mark \ufffd",
        "</s> <s> <pad> [PAD] {document} {query}",
        "line\r\nbreaks\u2028and\ttabs",
        "\U0010ffff \ue000 unassigned",
    ],
)
def test_odd_text_is_scored_and_changes_the_score(
    score_with_fake: Score, write_pairs: WritePairs, text: str
) -> None:
    extra = {"doc_id": pa.array(["d0", "d1", text])}
    pairs = [GOOD, (text, GOOD[1]), (GOOD[0], text)]
    scored = score_with_fake(write_pairs(pairs, extra=extra))
    assert scored.column("rejection") == [None] * 3
    assert len(set(scored.column("score"))) == 3
    assert scored.column("doc_id")[2] == text


# Bytes that are not text


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("bad", [LONE_SURROGATE, b"caf\xe9", b"\xff\xfe", b"\xf0\x9f\x98"])
@pytest.mark.parametrize("column", ["query", "document"])
def test_text_that_is_not_utf8_is_rejected_and_its_neighbours_are_scored(
    score_with_fake: Score, write_pairs: WritePairs, column: str, bad: bytes, type_: pa.DataType
) -> None:
    extra = {column: strings([b"fine", bad, None, "größer".encode()], type_)}
    scored = score_with_fake(write_pairs([GOOD] * 4, extra=extra))
    null = "NULL_QUERY" if column == "query" else "NULL_DOCUMENT"
    assert scored.column("rejection") == [None, "INVALID_TEXT", null, None]
    assert scored.column("doc_id") == ["d0", "d1", "d2", "d3"]
    clean = score_with_fake(
        write_pairs([GOOD] * 4, extra={column: pa.array(["fine", None, None, "größer"])}),
        name="clean",
    )
    assert scored.rows[0] == clean.rows[0]
    assert scored.rows[3] == clean.rows[3]


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("column", ["query_id", "doc_id"])
def test_id_that_is_not_utf8_is_rejected_and_the_output_stays_readable(
    score_with_fake: Score, write_pairs: WritePairs, column: str, type_: pa.DataType
) -> None:
    extra = {column: strings([b"a", b"b\xff", None, b"c"], type_)}
    scored = score_with_fake(write_pairs([GOOD] * 4, extra=extra))
    assert scored.column("rejection") == [None, "INVALID_TEXT", None, None]
    assert scored.column(column) == ["a", "b\ufffd", None, "c"]


def test_invalid_text_behind_a_dictionary_is_rejected(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    bad = strings([b"fine", LONE_SURROGATE, b"fine"]).dictionary_encode()
    path = write_pairs([GOOD] * 3, extra={"query": bad, "query_id": bad})
    assert pa.types.is_dictionary(pq.read_schema(path).field("query").type)
    scored = score_with_fake(path)
    assert scored.column("rejection") == [None, "INVALID_TEXT", None]
    assert scored.column("query_id") == ["fine", "\ufffd" * 3, "fine"]


def test_invalid_bytes_in_a_pass_through_column_are_copied(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs([GOOD, GOOD], extra={"note": strings([b"\xff", b"fine"])})
    scored = score_with_fake(path, overrides=("output.pass_through=[note]",))
    assert scored.column("rejection") == [None, None]
    assert scored.table["note"].cast(pa.binary()).to_pylist() == [b"\xff", b"fine"]
