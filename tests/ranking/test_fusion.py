from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgpt_batch.errors import ConfigError
from rgpt_batch.ranking.rank import FirstStage, Fusion, rank
from tests.ranking.files import Row, read_order, write_lines, write_scored

# Score and first-stage score by document; hundredths stay apart in any interpolation.
_HUNDREDTHS = st.integers(-500, 500).map(lambda number: number / 100)
_QUERY = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.tuples(_HUNDREDTHS, st.none() | _HUNDREDTHS),
    min_size=1,
    max_size=12,
).filter(lambda query: any(first is not None for _, first in query.values()))


def fused(query: dict[str, tuple[float, float | None]], alpha: float | None) -> list[str]:
    """Return the order that `rank` gives one query."""
    rows: list[Row] = [("q", doc_id, score) for doc_id, (score, _) in query.items()]
    firsts = pa.array([first for _, first in query.values()], pa.float64())
    with TemporaryDirectory() as name:
        scored = write_scored(Path(name, "scored.parquet"), rows, {"bm25": firsts})
        output = Path(name, "run.parquet")
        fusion = Fusion(first_stage=FirstStage(column="bm25"), alpha=alpha)
        rank([str(scored)], str(output), top_k=100, fusion=fusion)
        return read_order(output)["q"]


@settings(max_examples=25, deadline=None)
@given(query=_QUERY)
def test_alpha_one_gives_the_order_of_the_scores(
    query: dict[str, tuple[float, float | None]],
) -> None:
    assert fused(query, 1.0) == sorted(query, key=lambda doc_id: (-query[doc_id][0], doc_id))


@settings(max_examples=25, deadline=None)
@given(query=_QUERY)
def test_alpha_zero_gives_the_order_of_the_first_stage(
    query: dict[str, tuple[float, float | None]],
) -> None:
    known = [first for _, first in query.values() if first is not None]

    def first_stage(doc_id: str) -> float:
        first = query[doc_id][1]
        return min(known) if first is None else first

    assert fused(query, 0.0) == sorted(query, key=lambda doc_id: (-first_stage(doc_id), doc_id))


@settings(max_examples=25, deadline=None)
@given(query=_QUERY)
def test_reciprocal_rank_fusion_adds_up_what_both_rankings_give(
    query: dict[str, tuple[float, float | None]],
) -> None:
    points = dict.fromkeys(query, 0.0)
    for side in (0, 1):
        ranked = [doc_id for doc_id in query if query[doc_id][side] is not None]
        ranked.sort(key=lambda doc_id: (-(query[doc_id][side] or 0.0), doc_id))
        for place, doc_id in enumerate(ranked, start=1):
            points[doc_id] += 1 / (60 + place)
    assert fused(query, None) == sorted(query, key=lambda doc_id: (-points[doc_id], doc_id))


def test_interpolated_scores_are_those_of_the_formula(tmp_path: Path) -> None:
    rows: list[Row] = [
        ("q", "a", -1.0),
        ("q", "b", -2.0),
        ("q", "c", -4.0),
        ("q", "missing", -0.5),
        ("q", "rejected", None),
        ("same", "a", -1.0),
        ("same", "b", -3.0),
    ]
    bm25 = [10.0, 20.0, 15.0, None, 12.0, 7.0, 7.0]
    scored = write_scored(tmp_path / "scored.parquet", rows, {"bm25": bm25})
    fusion = Fusion(first_stage=FirstStage(column="bm25"), alpha=0.75)
    summary = rank([str(scored)], str(tmp_path / "run.parquet"), top_k=10, fusion=fusion)
    table = pq.read_table(tmp_path / "run.parquet")
    assert table.column_names == [
        "query_id",
        "doc_id",
        "rank",
        "score",
        "ql_score",
        "first_stage_score",
    ]
    # 0.75 · ql + 0.25 · (bm25 - 10) / (20 - 10); equal BM25 scores count 0.
    assert [(row["query_id"], row["doc_id"], row["score"]) for row in table.to_pylist()] == [
        ("q", "missing", -0.375),
        ("q", "a", -0.75),
        ("q", "b", -1.25),
        ("q", "c", -2.875),
        ("q", "rejected", None),
        ("same", "a", -0.75),
        ("same", "b", -2.25),
    ]
    assert table["first_stage_score"].to_pylist()[:5] == [None, 10.0, 20.0, 15.0, 12.0]
    assert summary.num_without_first_stage == 1


def test_first_stage_may_be_a_column_a_parquet_file_or_a_trec_run(tmp_path: Path) -> None:
    rows: list[Row] = [("q", "a", -1.0), ("q", "b", -1.5), ("q", "c", -3.0)]
    bm25 = [1.0, 4.0, 2.5]
    scored = write_scored(tmp_path / "scored.parquet", rows, {"bm25": bm25})
    # The other sources are in another order and know a pair that was not scored.
    pairs = {"qid": ["q", "q", "q", "q"], "docno": ["c", "x", "b", "a"], "bm25": [2.5, 9, 4, 1]}
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    run = write_lines(
        tmp_path / "bm25.trec",
        *(f"{q} Q0 {d} 1 {s} x" for q, d, s in zip(*pairs.values(), strict=True)),
    )
    sources = [
        FirstStage(column="bm25"),
        FirstStage(file=str(tmp_path / "pairs.parquet"), column="bm25"),
        FirstStage(file=str(run)),
    ]
    tables = []
    for source in sources:
        output = tmp_path / "run.parquet"
        fusion = Fusion(first_stage=source, alpha=0.5)
        rank([str(scored)], str(output), top_k=10, fusion=fusion)
        tables.append(pq.read_table(output))
    assert tables[0]["doc_id"].to_pylist() == ["b", "a", "c"]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_first_stage_without_any_of_the_pairs_is_refused(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q1", "a", -1.0)])
    run = write_lines(tmp_path / "bm25.trec", "1 Q0 a 1 7.5 bm25")
    fusion = Fusion(first_stage=FirstStage(file=str(run)), alpha=0.5)
    with pytest.raises(ConfigError, match=r"bm25\.trec: has no score for any of the scored pairs"):
        rank([str(scored)], str(tmp_path / "run.parquet"), top_k=10, fusion=fusion)
