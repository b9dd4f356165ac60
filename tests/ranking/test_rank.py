from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.ranking.rank import FirstStage, Fusion, rank
from tests.ranking.files import Row, read_order, write_scored, write_success

# Few values, so that ties are common.
_SCORES = st.none() | st.integers(-3, 0).map(float) | st.floats(-50, 0, width=32)
_PAIRS = st.dictionaries(
    st.tuples(st.sampled_from(["q1", "q2", "q10", "ü"]), st.text("abé1", min_size=1, max_size=3)),
    _SCORES,
    min_size=1,
    max_size=40,
)


def naive_rank(pairs: dict[tuple[str, str], float | None], top_k: int, keep: bool) -> list[Row]:
    rows: list[Row] = []
    for query_id in sorted({query_id for query_id, _ in pairs}):
        scored = [(d, s) for (q, d), s in pairs.items() if q == query_id]
        scored = [(d, s) for d, s in scored if keep or s is not None]
        # Equal scores: the larger doc_id first.
        scored.sort(key=lambda pair: pair[0], reverse=True)
        scored.sort(key=lambda pair: (pair[1] is None, -(pair[1] or 0)))
        rows += [(query_id, doc_id, score) for doc_id, score in scored[:top_k]]
    return rows


@settings(max_examples=40, deadline=None)
@given(
    pairs=_PAIRS,
    top_k=st.integers(1, 8),
    keep=st.booleans(),
    num_files=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_ranking_of_many_files_equals_a_plain_sort_of_all_pairs(
    pairs: dict[tuple[str, str], float | None], top_k: int, keep: bool, num_files: int, seed: int
) -> None:
    rows: list[Row] = [(q, d, s) for (q, d), s in pairs.items()]
    np.random.default_rng(seed).shuffle(rows)
    with TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(num_files):
            write_scored(folder / "scored" / f"{i}.parquet", rows[i::num_files])
        output = folder / "ranking.parquet"
        summary = rank([str(folder / "scored")], str(output), top_k=top_k, keep_rejected=keep)
        table = pq.read_table(output)
    expected = naive_rank(pairs, top_k, keep)
    columns = (table[name].to_pylist() for name in ("query_id", "doc_id", "score"))
    assert list(zip(*columns, strict=True)) == expected
    assert summary.num_ranked == len(expected)
    assert summary.num_pairs == len(pairs)
    assert summary.num_rejected == sum(score is None for score in pairs.values())


def test_ranks_count_from_one_in_every_query_and_scores_keep_their_type(tmp_path: Path) -> None:
    scored = write_scored(
        tmp_path / "scored.parquet", [("b", "x", -2.0), ("a", "x", -1.5), ("b", "y", -1.0)]
    )
    rank([str(scored)], str(tmp_path / "new" / "run.parquet"), top_k=10)
    table = pq.read_table(tmp_path / "new" / "run.parquet")
    assert table.to_pylist() == [
        {"query_id": "a", "doc_id": "x", "rank": 1, "score": -1.5},
        {"query_id": "b", "doc_id": "y", "rank": 1, "score": -1.0},
        {"query_id": "b", "doc_id": "x", "rank": 2, "score": -2.0},
    ]
    assert [str(field.type) for field in table.schema] == ["string", "string", "int32", "float"]


def test_any_numeric_column_and_other_names_of_ids_can_be_ranked(tmp_path: Path) -> None:
    pairs = pa.table({"qid": [7, 7], "docno": ["x", "y"], "bm25": [1, 2]})
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    output = tmp_path / "bm25.trec"
    rank(
        [str(tmp_path / "pairs.parquet")],
        str(output),
        top_k=10,
        run_format="trec",
        score_column="bm25",
        tag="bm25",
    )
    assert output.read_text() == "7 Q0 y 1 2 bm25\n7 Q0 x 2 1 bm25\n"


def test_rejected_pairs_stand_last_in_a_trec_run_below_all_scores(tmp_path: Path) -> None:
    scored = write_scored(
        tmp_path / "scored.parquet", [("q", "a", None), ("q", "b", -9.0), ("r", "a", None)]
    )
    rank([str(scored)], str(tmp_path / "run"), top_k=10, run_format="trec")
    lines = [line.split() for line in (tmp_path / "run").open()]
    assert [(line[0], line[2], line[3]) for line in lines] == [
        ("q", "b", "1"),
        ("q", "a", "2"),
        ("r", "a", "1"),
    ]
    assert float(lines[1][4]) < -9.0


def test_pair_with_several_scores_is_refused_or_keeps_its_best(tmp_path: Path) -> None:
    first = write_scored(tmp_path / "1.parquet", [("q", "a", -2.0), ("q", "b", -3.0)])
    second = write_scored(tmp_path / "2.parquet", [("q", "b", -1.0)])
    scored = [str(first), str(second)]
    output = tmp_path / "run.parquet"
    with pytest.raises(ShardError, match=r"1 pairs .* 'q' with document 'b'.*--duplicates max"):
        rank(scored, str(output), top_k=10)
    rank(scored, str(output), top_k=10, duplicates="max")
    assert read_order(output) == {"q": ["b", "a"]}


def test_a_rejected_and_a_scored_row_of_one_pair_count_as_the_scored_one(tmp_path: Path) -> None:
    rows: list[Row] = [("q", "a", None), ("q", "a", -1.0), ("q", "b", None), ("q", "b", None)]
    scored = write_scored(tmp_path / "scored.parquet", rows)
    summary = rank([str(scored)], str(tmp_path / "run.parquet"), top_k=10)
    assert read_order(tmp_path / "run.parquet") == {"q": ["a", "b"]}
    assert (summary.num_pairs, summary.num_rejected) == (2, 1)


def test_rows_whose_ids_were_unreadable_are_left_out_and_counted(tmp_path: Path) -> None:
    rows: list[Row] = [(None, None, None), ("q", None, None), ("q", "a", -1.0)]
    scored = write_scored(tmp_path / "scored.parquet", rows)
    summary = rank([str(scored)], str(tmp_path / "run.parquet"), top_k=10)
    assert summary.num_without_ids == 2
    assert read_order(tmp_path / "run.parquet") == {"q": ["a"]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300, -3.5e38])
@pytest.mark.parametrize(
    ("score_column", "fusion"),
    [("bm25", None), ("score", Fusion(first_stage=FirstStage(column="bm25"), alpha=0.5))],
)
def test_score_that_is_not_finite_in_float32_is_refused_with_file_row_and_value(
    tmp_path: Path, value: float, score_column: str, fusion: Fusion | None
) -> None:
    rows: list[Row] = [("q", f"d{i}", -1.0) for i in range(6)]
    write_scored(tmp_path / "scored" / "0.parquet", rows[:3], {"bm25": [1.0, None, 2.0]})
    named = write_scored(tmp_path / "scored" / "1.parquet", rows[3:], {"bm25": [1.0, None, value]})
    said = re.escape(f"{named}: row 2 (counted from 0) has {value!r} in column 'bm25', expected")
    with pytest.raises(ShardError, match=said):
        rank(
            [str(tmp_path / "scored")],
            str(tmp_path / "run.parquet"),
            top_k=10,
            score_column=score_column,
            fusion=fusion,
        )


def test_unfinished_job_is_refused_but_its_files_can_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "scored"
    write_scored(folder / "part-000000.parquet", [("q", "a", -1.0)])
    (folder / "_rgpt").mkdir()
    with pytest.raises(ConfigError, match=r"has not finished.*part-\*\.parquet"):
        rank([str(folder)], str(tmp_path / "run.parquet"), top_k=10)
    rank([str(folder / "part-*.parquet")], str(tmp_path / "run.parquet"), top_k=10)
    assert read_order(tmp_path / "run.parquet") == {"q": ["a"]}


def test_ranking_in_the_job_folder_is_not_taken_for_scored_pairs(tmp_path: Path) -> None:
    folder = tmp_path / "scored"
    write_scored(folder / "part-000000.parquet", [("q", "a", -1.0)])
    write_success(folder)
    for _ in range(2):
        summary = rank([str(folder)], str(folder / "run.parquet"), top_k=10)
        assert summary.num_pairs == 1


def test_path_with_special_characters_is_read_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "it's [1]" / "score=5"
    scored = write_scored(folder / "a*.parquet", [("q", "a", -1.0)])
    rank([str(scored)], str(folder / "o'utput.parquet"), top_k=10)
    assert pq.read_table(folder / "o'utput.parquet", partitioning=None)["score"].to_pylist() == [-1]


def test_failure_leaves_the_earlier_output_and_no_other_file(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0), ("q", "b c", -2.0)])
    output = tmp_path / "run.trec"
    output.write_text("earlier")
    with pytest.raises(ConfigError, match=r"'b c' is empty or holds white space.*parquet"):
        rank([str(scored)], str(output), top_k=10, run_format="trec")
    assert output.read_text() == "earlier"
    assert {file.name for file in tmp_path.iterdir()} == {"scored.parquet", "run.trec"}


def test_errors_name_the_file_and_what_it_has_instead(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0)])
    output = str(tmp_path / "run.parquet")
    with pytest.raises(ShardError, match=r"no column 'bm25_score'\. It has: query_id"):
        rank([str(scored)], output, top_k=10, score_column="bm25_score")
    with pytest.raises(ShardError, match="column 'doc_id' is string, expected a number"):
        rank([str(scored)], output, top_k=10, score_column="doc_id")
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(ShardError, match=r"text\.parquet: not a readable Parquet file"):
        rank([str(tmp_path / "text.parquet")], output, top_k=10)
    with pytest.raises(ShardError, match=r"text\.parquet"):
        rank([str(scored), str(tmp_path / "text.parquet")], output, top_k=10)
    pq.write_table(pa.table({"score": [1.0]}), tmp_path / "ids.parquet")
    with pytest.raises(ShardError, match=r"no query_id column \(query_id, qid"):
        rank([str(tmp_path / "ids.parquet")], output, top_k=10)
    with pytest.raises(ConfigError, match="is a folder"):
        rank([str(scored)], str(tmp_path), top_k=10)


@pytest.fixture(scope="module")
def many_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A million pairs of a thousand queries, 60 MB of ids, no two pairs of a query in a row."""
    path = tmp_path_factory.mktemp("many") / "scored.parquet"
    duckdb.sql(
        f"""
        COPY (
            SELECT format('query-{{:05d}}', row % 1000) AS query_id,
                   format('document-with-a-rather-long-identifier-{{:012d}}', row) AS doc_id,
                   -(row // 1000)::FLOAT AS score
            FROM (SELECT (range * 7368787) % 1000000 AS row FROM range(1000000))
        ) TO '{path}'
        """
    )
    return path


def test_pairs_larger_than_the_memory_are_ranked_through_the_disk(
    many_pairs: Path, tmp_path: Path
) -> None:
    temp_folder = tmp_path / "temp"
    temp_folder.mkdir()
    output = tmp_path / "run.parquet"
    rank([str(many_pairs)], str(output), top_k=2, memory_gib=0.125, temp_folder=str(temp_folder))
    order = read_order(output)
    assert len(order) == 1000
    assert [int(doc_id[-12:]) for doc_id in order["query-00007"]] == [7, 1007]
    assert list(temp_folder.iterdir()) == []


def test_too_little_memory_is_an_error_that_names_the_option(
    many_pairs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--memory-gib"):
        rank([str(many_pairs)], str(tmp_path / "run.parquet"), top_k=2, memory_gib=0.03)
