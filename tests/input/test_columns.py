"""Which columns are found, which types are accepted, and what is copied."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.import_pairs import import_pairs
from rgpt_batch.importing.sources.pairs import PairSource
from rgpt_batch.input.inspect import inspect_shard
from rgpt_batch.ranking.rank import rank
from tests.jobs import Score, fake_config

WritePairs = Callable[..., Path]

PAIRS = {
    "query_id": ["q0", "q1"],
    "doc_id": ["d0", "d1"],
    "query": ["a query", "another"],
    "document": ["a document", "one more"],
}


def _write(path: Path, columns: Mapping[str, object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def _renamed(**names: str) -> dict[str, list[str]]:
    return {names.get(name, name): values for name, values in PAIRS.items()}


# Names


@pytest.mark.parametrize(
    "names",
    [
        {"query_id": "qid", "doc_id": "docno", "query": "query_text", "document": "text"},
        {"query_id": "query-id", "doc_id": "corpus-id", "document": "passage"},
        {"doc_id": "pid", "document": "doc"},
        {"doc_id": "docid"},
    ],
)
def test_usual_aliases_are_found_and_the_output_has_our_names(
    score_with_fake: Score, tmp_path: Path, names: dict[str, str]
) -> None:
    expected = score_with_fake(_write(tmp_path / "plain.parquet", PAIRS), name="plain")
    scored = score_with_fake(_write(tmp_path / "aliases.parquet", _renamed(**names)))
    assert scored.rows == expected.rows


def test_configured_columns_win_over_aliases(score_with_fake: Score, tmp_path: Path) -> None:
    expected = score_with_fake(_write(tmp_path / "plain.parquet", PAIRS), name="plain")
    columns = {**_renamed(document="body"), "document": ["wrong", "wrong"]}
    scored = score_with_fake(
        _write(tmp_path / "mapped.parquet", columns), overrides=("input.columns.document=body",)
    )
    assert scored.rows == expected.rows


def test_one_column_can_be_both_id_and_text(score_with_fake: Score, tmp_path: Path) -> None:
    scored = score_with_fake(
        _write(tmp_path / "pairs.parquet", PAIRS), overrides=("input.columns.query_id=query",)
    )
    assert scored.column("query_id") == PAIRS["query"]


def test_column_name_with_dots_is_read_and_counted(score_with_fake: Score, tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.parquet", _renamed(document="doc.body.text"))
    overrides = ("input.columns.document=doc.body.text",)
    assert score_with_fake(path, overrides=overrides).column("rejection") == [None, None]
    config = fake_config(tmp_path, *overrides)
    with_document = inspect_shard(str(path), config.input, ())
    plain = inspect_shard(
        str(_write(tmp_path / "plain.parquet", PAIRS)), fake_config(tmp_path).input, ()
    )
    assert with_document.row_groups == plain.row_groups


def test_missing_column_is_named_with_what_the_file_has(
    score_with_fake: Score, tmp_path: Path
) -> None:
    path = _write(tmp_path / "pairs.parquet", _renamed(document="body"))
    with pytest.raises(ShardError) as caught:
        score_with_fake(path)
    assert str(caught.value) == (
        f"{path}: no document column (document, text, passage, doc). It has: query_id, doc_id, "
        "query, body. Set input.columns.document to the column's name."
    )


def test_id_that_stands_in_a_folder_name_is_said_to_be_there_and_not_read(
    score_with_fake: Score, tmp_path: Path
) -> None:
    folder = tmp_path / "qid=7" / "part=0"
    folder.mkdir(parents=True)
    without = {name: values for name, values in PAIRS.items() if name != "query_id"}
    pairs = _write(folder / "pairs.parquet", without)
    said = r"no query_id column \(.*The folder's name 'qid=7' is not read: write the column into"
    with pytest.raises(ShardError, match=said):
        score_with_fake(pairs)
    with pytest.raises(ShardError, match=said):
        rank([pairs], tmp_path / "run.parquet", top_k=1)
    source = PairSource(pairs=pairs, queries=None, corpus=None)
    with pytest.raises(ShardError, match=said):
        import_pairs(source, tmp_path / "imported")
    # Another column's folder has nothing to do with it.
    without = {name: values for name, values in PAIRS.items() if name != "doc_id"}
    other = _write(tmp_path / "qid=7" / "pairs.parquet", without)
    with pytest.raises(ShardError, match=r"no doc_id column .* Set input\.columns\.doc_id"):
        score_with_fake(other)


def test_configured_column_that_is_missing_is_named(score_with_fake: Score, tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.parquet", PAIRS)
    with pytest.raises(ShardError, match=r"pairs\.parquet: no column 'body'\. It has: query_id"):
        score_with_fake(path, overrides=("input.columns.document=body",))


def test_two_aliases_at_once_are_ambiguous(score_with_fake: Score, tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.parquet", {**PAIRS, "text": ["a", "b"]})
    with pytest.raises(ShardError) as caught:
        score_with_fake(path)
    assert str(caught.value) == (
        f"{path}: document and text could both be the document. "
        "Set input.columns.document to the column's name."
    )


def test_pyterrier_frame_has_its_ids_in_docno_and_numbers_in_docid(
    score_with_fake: Score, tmp_path: Path
) -> None:
    frame = {**_renamed(query_id="qid", doc_id="docno", document="text"), "docid": [7, 8]}
    scored = score_with_fake(_write(tmp_path / "frame.parquet", frame))
    assert scored.column("doc_id") == PAIRS["doc_id"]


@pytest.mark.parametrize("twice", ["query", "note"])
def test_column_that_exists_twice_is_refused(
    score_with_fake: Score, tmp_path: Path, twice: str
) -> None:
    arrays = [*map(pa.array, PAIRS.values()), pa.array(["x", "y"]), pa.array(["x", "y"])]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table(arrays, names=[*PAIRS, "note", twice]), path)
    with pytest.raises(ShardError, match=f"pairs.parquet: column '{twice}' exists twice. Rename"):
        score_with_fake(path, overrides=("output.pass_through=[note]",))


# Types


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("document", pa.array([1, 2]), "column 'document' is int64, expected string. Cast it"),
        ("query", pa.array([b"a", b"b"]), "column 'query' is binary, expected string. Cast it"),
        ("query", pa.array([["a"], ["b"]]), "column 'query' is list<element: string>, expected"),
        ("document", pa.array([{"t": "a"}] * 2), "column 'document' is struct<t: string>, exp"),
        ("query_id", pa.array([1.5, 2.5]), "column 'query_id' is double, expected string or int"),
        ("doc_id", pa.array([True, False]), "column 'doc_id' is bool, expected string or integer"),
        ("doc_id", pa.array([[1], [2]]), "column 'doc_id' is list<element: int64>, expected str"),
    ],
)
def test_unusable_type_is_refused_by_path_and_column(
    score_with_fake: Score, tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    path = _write(tmp_path / "pairs.parquet", {**PAIRS, column: values})
    with pytest.raises(ShardError) as caught:
        score_with_fake(path)
    assert f"{path}: {message}" in str(caught.value)
    assert f"input.columns.{column} to another column." in str(caught.value)


@pytest.mark.parametrize(
    "type_",
    [
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
    ],
    ids=str,
)
def test_integer_ids_become_strings_at_their_limits(
    score_with_fake: Score, tmp_path: Path, type_: pa.DataType
) -> None:
    bits = type_.bit_width
    low, high = (
        (0, 2**bits - 1) if str(type_)[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    ids = pa.array([low, high], type_)
    scored = score_with_fake(
        _write(tmp_path / "pairs.parquet", {**PAIRS, "query_id": ids, "doc_id": ids})
    )
    assert scored.column("query_id") == scored.column("doc_id") == [str(low), str(high)]


@pytest.mark.parametrize(
    "type_",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
    ],
    ids=str,
)
def test_every_kind_of_string_column_gives_the_same_output(
    score_with_fake: Score, tmp_path: Path, type_: pa.DataType
) -> None:
    expected = score_with_fake(_write(tmp_path / "plain.parquet", PAIRS), name="plain")
    columns = {name: pa.array(values).cast(type_) for name, values in PAIRS.items()}
    path = _write(tmp_path / "typed.parquet", columns)
    found = pq.read_schema(path).field("query").type
    assert pa.types.is_dictionary(found) == pa.types.is_dictionary(type_)
    scored = score_with_fake(path)
    assert scored.table.schema.equals(expected.table.schema)
    assert scored.rows == expected.rows


# Pass-through columns

COPIED: dict[str, pa.Array] = {
    "numbers": pa.array([1, None], pa.int16()),
    "list": pa.array([["a", None], []]),
    "struct": pa.array([{"x": 1, "y": [1.5]}, None]),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
    "kind": pa.array(["a", "b"]).dictionary_encode(),
    "when": pa.array([datetime.datetime(2024, 1, 2, 3, 4, 5), None], pa.timestamp("us", "UTC")),
    "bytes": pa.array([b"\xff", None]),
    "nothing": pa.nulls(2),
    "price": pa.array([None, 1], pa.decimal128(10, 2)),
}


def test_columns_of_any_type_are_copied_unchanged(score_with_fake: Score, tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.parquet", {**PAIRS, **COPIED})
    names = ", ".join(COPIED)
    scored = score_with_fake(path, overrides=(f"output.pass_through=[{names}]",))
    copied = scored.table.select(list(COPIED)).combine_chunks()
    assert copied.equals(pq.read_table(path, columns=list(COPIED)).combine_chunks())


def test_dictionaries_that_differ_between_files_are_copied(
    score_with_fake: Score, tmp_path: Path
) -> None:
    for name, kinds in {"a": ["x", "y"], "b": ["y", "z"]}.items():
        kind = pa.array(kinds).dictionary_encode()
        _write(tmp_path / f"{name}.parquet", {**PAIRS, "kind": kind})
    scored = score_with_fake(
        tmp_path / "a.parquet", tmp_path / "b.parquet", overrides=("output.pass_through=[kind]",)
    )
    assert scored.summary.num_units == 1
    assert scored.column("kind") == ["x", "y", "y", "z"]


def test_input_columns_that_are_read_anyway_can_be_passed_through(
    score_with_fake: Score, tmp_path: Path
) -> None:
    path = _write(tmp_path / "pairs.parquet", _renamed(doc_id="docno"))
    scored = score_with_fake(path, overrides=("output.pass_through=[query, document, docno]",))
    assert scored.column("query") == PAIRS["query"]
    assert scored.column("document") == PAIRS["document"]
    assert scored.column("docno") == scored.column("doc_id") == PAIRS["doc_id"]


@pytest.mark.parametrize(
    "name", ["query_id", "score", "rejection", "query_token_logprobs", "source_row"]
)
def test_pass_through_column_that_would_hide_ours_is_refused(
    score_with_fake: Score, tmp_path: Path, name: str
) -> None:
    path = _write(tmp_path / "pairs.parquet", {**PAIRS, "score": [1.0, 2.0]})
    with pytest.raises(
        ConfigError, match=rf"output\.pass_through: {name} would collide with an output column"
    ):
        score_with_fake(path, overrides=(f"output.pass_through=[{name}]",))


def test_pass_through_column_named_twice_is_refused(score_with_fake: Score, tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.parquet", {**PAIRS, "note": ["a", "b"]})
    with pytest.raises(ConfigError, match=r"output\.pass_through: a column is named twice"):
        score_with_fake(path, overrides=("output.pass_through=[note, note]",))


def test_missing_pass_through_column_is_named(score_with_fake: Score, tmp_path: Path) -> None:
    path = _write(tmp_path / "pairs.parquet", PAIRS)
    with pytest.raises(
        ShardError, match=r"pairs\.parquet: no column 'note' to pass through\. It h"
    ):
        score_with_fake(path, overrides=("output.pass_through=[note]",))


# Files of one job that differ


def test_files_may_differ_in_column_order_string_types_and_unused_columns(
    score_with_fake: Score, tmp_path: Path
) -> None:
    plain = _write(tmp_path / "plain.parquet", PAIRS)
    columns = {
        "unused": pa.array([1, 2]),
        **{name: pa.array(PAIRS[name]).cast(pa.large_string()) for name in reversed(PAIRS)},
        "query_id": pa.array([5, 6]),
    }
    other = _write(tmp_path / "other.parquet", columns)
    scored = score_with_fake(plain, other)
    assert scored.column("query_id") == ["q0", "q1", "5", "6"]
    assert scored.column("score")[:2] == scored.column("score")[2:]


def test_files_that_name_a_column_differently_are_refused(
    score_with_fake: Score, tmp_path: Path
) -> None:
    first = _write(tmp_path / "a.parquet", PAIRS)
    second = _write(tmp_path / "b.parquet", _renamed(query_id="qid"))
    with pytest.raises(ShardError) as caught:
        score_with_fake(first, second)
    assert str(caught.value) == (
        f"{second}: column 'qid' holds the query_id, but 'query_id' does in {first}. "
        "Rename one, or set input.columns.query_id."
    )


def test_files_whose_pass_through_types_differ_are_refused(
    score_with_fake: Score, tmp_path: Path
) -> None:
    first = _write(tmp_path / "a.parquet", {**PAIRS, "rank": pa.array([1, 2])})
    second = _write(tmp_path / "b.parquet", {**PAIRS, "rank": pa.array(["1", "2"])})
    with pytest.raises(ShardError) as caught:
        score_with_fake(first, second, overrides=("output.pass_through=[rank]",))
    assert str(caught.value) == (
        f"{second}: column 'rank' is string, but int64 in {first}. "
        "Cast one of them, or do not pass the column through."
    )


def test_file_that_lacks_a_column_is_refused_before_anything_is_scored(
    score_with_fake: Score, tmp_path: Path
) -> None:
    first = _write(tmp_path / "a.parquet", PAIRS)
    second = _write(tmp_path / "b.parquet", _renamed(query="wish"))
    with pytest.raises(ShardError, match=r"b\.parquet: no query column \(query, query_text\)"):
        score_with_fake(first, second)
    assert not (tmp_path / "scored").exists()
