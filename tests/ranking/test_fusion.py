from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgpt_batch.errors import ConfigError
from rgpt_batch.ranking.fusion import Normalization
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

_NORMALIZATIONS = st.sampled_from(get_args(Normalization))


def fused(
    query: dict[str, tuple[float, float | None]],
    alpha: float | None,
    normalize: Normalization = "minmax",
) -> list[str]:
    """Return the order that `rank` gives one query."""
    rows: list[Row] = [("q", doc_id, score) for doc_id, (score, _) in query.items()]
    firsts = pa.array([first for _, first in query.values()], pa.float64())
    with TemporaryDirectory() as name:
        scored = write_scored(Path(name, "scored.parquet"), rows, {"bm25": firsts})
        output = Path(name, "run.parquet")
        fusion = Fusion(first_stage=FirstStage(column="bm25"), alpha=alpha, normalize=normalize)
        rank([str(scored)], str(output), top_k=100, fusion=fusion)
        return read_order(output)["q"]


def best_first(query: Iterable[str], score: Callable[[str], float]) -> list[str]:
    """Sort documents by score, and where scores are equal by id, both descending."""
    return sorted(query, key=lambda doc_id: (score(doc_id), doc_id), reverse=True)


@settings(max_examples=25, deadline=None)
@given(query=_QUERY, normalize=_NORMALIZATIONS)
def test_alpha_one_gives_the_order_of_the_scores(
    query: dict[str, tuple[float, float | None]], normalize: Normalization
) -> None:
    assert fused(query, 1.0, normalize) == best_first(query, lambda doc_id: query[doc_id][0])


@settings(max_examples=25, deadline=None)
@given(query=_QUERY, normalize=_NORMALIZATIONS)
def test_alpha_zero_gives_the_order_of_the_first_stage(
    query: dict[str, tuple[float, float | None]], normalize: Normalization
) -> None:
    known = [first for _, first in query.values() if first is not None]

    def first_stage(doc_id: str) -> float:
        first = query[doc_id][1]
        return min(known) if first is None else first

    assert fused(query, 0.0, normalize) == best_first(query, first_stage)


@settings(max_examples=25, deadline=None)
@given(query=_QUERY)
def test_reciprocal_rank_fusion_adds_up_what_both_rankings_give(
    query: dict[str, tuple[float, float | None]],
) -> None:
    points = dict.fromkeys(query, 0.0)
    for side in (0, 1):
        known = {
            doc_id: pair[side] or 0.0 for doc_id, pair in query.items() if pair[side] is not None
        }
        for place, doc_id in enumerate(best_first(known, known.__getitem__), start=1):
            points[doc_id] += 1 / (60 + place)
    assert fused(query, None) == best_first(query, lambda doc_id: points[doc_id])


# Per query: scores of a, b, c and of one that the first stage lacks.
_QL = [-1.0, -2.0, -4.0, -0.5]
_BM25 = [10.0, 20.0, 15.0]


def _minmax(values: list[float], x: float) -> float:
    return (x - min(values)) / (max(values) - min(values))


def _zscore(values: list[float], x: float) -> float:
    return (x - statistics.fmean(values)) / statistics.pstdev(values)


@pytest.mark.parametrize(
    ("normalize", "scaled"),
    [("minmax", _minmax), ("zscore", _zscore), ("none", lambda values, x: x)],
)
def test_interpolated_scores_are_those_of_the_formula(
    tmp_path: Path, normalize: Normalization, scaled: Callable[[list[float], float], float]
) -> None:
    rows: list[Row] = [("q", doc_id, score) for doc_id, score in zip("abcx", _QL, strict=True)]
    rows += [("q", "rejected", None), ("same", "a", -1.0), ("same", "b", -3.0)]
    # The rejected pair's is known, and neither lowest nor highest.
    bm25 = [*_BM25, None, 12.0, 7.0, 7.0]
    scored = write_scored(tmp_path / "scored.parquet", rows, {"bm25": bm25})
    fusion = Fusion(first_stage=FirstStage(column="bm25"), alpha=0.75, normalize=normalize)
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
    first = [*_BM25, 12.0]
    # What the first stage lacks counts as its lowest; equal first-stage scores count 0, or 7.
    expected = {
        doc_id: 0.75 * scaled(_QL, ql) + 0.25 * scaled(first, f)
        for doc_id, ql, f in zip("abcx", _QL, [*_BM25, 10.0], strict=True)
    }
    found = table.to_pylist()
    assert {row["doc_id"]: row["score"] for row in found[:4]} == pytest.approx(expected)
    assert [row["doc_id"] for row in found[:4]] == best_first("abcx", expected.__getitem__)
    assert (found[4]["doc_id"], found[4]["score"]) == ("rejected", None)
    constant = 7.0 if normalize == "none" else 0.0
    assert [row["score"] for row in found[5:]] == pytest.approx(
        [0.75 * scaled([-1, -3], ql) + 0.25 * constant for ql in (-1, -3)]
    )
    assert {row["doc_id"]: row["ql_score"] for row in found[:4]} == dict(
        zip("abcx", _QL, strict=True)
    )
    assert {row["doc_id"]: row["first_stage_score"] for row in found[:5]} == dict(
        zip([*"abcx", "rejected"], bm25, strict=False)
    )
    assert summary.num_without_first_stage == 1


@pytest.mark.parametrize("normalize", ["minmax", "zscore"])
def test_half_and_half_weighs_both_sides_alike_whatever_their_units(
    tmp_path: Path, normalize: Normalization
) -> None:
    # The likelihood spreads over 0.2 nats and says a b c, the first stage over 20 and says c b a.
    rows: list[Row] = [("q", "a", -1.0), ("q", "b", -1.1), ("q", "c", -1.2)]
    scored = write_scored(tmp_path / "scored.parquet", rows, {"bm25": [10.0, 20.0, 30.0]})
    fusion = Fusion(first_stage=FirstStage(column="bm25"), alpha=0.5, normalize=normalize)
    rank([str(scored)], str(tmp_path / "run.parquet"), top_k=10, fusion=fusion)
    scores = pq.read_table(tmp_path / "run.parquet")["score"].to_pylist()
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)


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
