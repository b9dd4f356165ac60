from __future__ import annotations

from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.ranking.compare import compare
from tests.ranking.files import Row, feeding, write_lines, write_scored


def test_rows_scores_and_order_are_compared_pair_by_pair(tmp_path: Path) -> None:
    a = write_scored(
        tmp_path / "a.parquet",
        [
            ("q", "a", -1.0),
            ("q", "b", -2.0),
            ("q", "c", -3.0),
            ("q", "no-a", None),
            ("q", "no-b", -9.0),
            ("q", "neither", None),
            ("q", "only-a", -9.0),
            ("one", "a", -1.0),
        ],
    )
    b = write_scored(
        tmp_path / "b.parquet",
        [
            ("one", "a", -1.0),
            ("q", "c", -2.0),
            ("q", "b", -2.25),
            ("q", "a", -1.5),
            ("q", "no-a", -9.0),
            ("q", "no-b", None),
            ("q", "neither", None),
            ("p", "only-b", -9.0),
            ("p", "only-b-rejected", None),
        ],
    )
    found = compare(str(a), str(b))
    overlap, scores, rankings = found.overlap, found.scores, found.rankings
    assert (overlap.num_shared, overlap.num_only_in_a, overlap.num_only_in_b) == (7, 1, 2)
    assert overlap.num_scored == 4
    assert (overlap.num_rejected_only_in_a, overlap.num_rejected_only_in_b) == (1, 1)
    # Differences: -0.5, -0.25, +1, 0.
    assert scores.mean == 0.0625
    assert scores.mean_absolute == 0.4375
    assert scores.median_absolute == 0.375
    assert (scores.max_absolute, scores.max_query_id, scores.max_doc_id) == (1.0, "q", "c")
    # a b c against a c b; the query of one document has no order.
    assert (rankings.num_queries, rankings.num_document_pairs, rankings.num_flips) == (2, 3, 1)
    assert rankings.mean_kendall_tau == pytest.approx(1 / 3)
    assert rankings.mean_top_overlap == 1.0
    assert found.quality is None


@settings(max_examples=25, deadline=None)
@given(
    queries=st.lists(
        st.lists(st.tuples(st.integers(-4, 0), st.integers(-4, 0)), min_size=1, max_size=14),
        min_size=1,
        max_size=4,
    )
)
def test_flips_tau_and_overlap_equal_plain_counting(queries: list[list[tuple[int, int]]]) -> None:
    rows: tuple[list[Row], list[Row]] = ([], [])
    flips, taus, overlaps = 0, [], []
    for i, scores in enumerate(queries):
        doc_ids = [f"d{n:02d}" for n in range(len(scores))]
        places = []
        for side in (0, 1):
            rows[side].extend(
                (f"q{i}", d, float(s[side])) for d, s in zip(doc_ids, scores, strict=True)
            )
            # Of equal scores the larger doc_id comes first.
            order = sorted(range(len(scores)), key=lambda n: (-scores[n][side], -n))
            places.append([order.index(n) for n in range(len(scores))])
        flips += sum(
            (places[0][m] < places[0][n]) != (places[1][m] < places[1][n])
            for m, n in combinations(range(len(scores)), 2)
        )
        if len(scores) > 1:
            taus.append(kendalltau(*places).statistic)
        top = [{n for n, place in enumerate(side) if place < 10} for side in places]
        overlaps.append(len(top[0] & top[1]) / len(top[0]))
    with TemporaryDirectory() as name:
        a = write_scored(Path(name, "a.parquet"), rows[0])
        b = write_scored(Path(name, "b.parquet"), rows[1])
        found = compare(str(a), str(b)).rankings
    assert found.num_flips == flips
    assert found.num_document_pairs == sum(len(q) * (len(q) - 1) // 2 for q in queries)
    assert found.mean_top_overlap == pytest.approx(sum(overlaps) / len(overlaps))
    if taus:
        assert found.mean_kendall_tau == pytest.approx(sum(taus) / len(taus))
    else:
        assert found.mean_kendall_tau is None


def test_outputs_with_equal_scores_have_no_pair_with_the_largest_difference(tmp_path: Path) -> None:
    a = write_scored(tmp_path / "a.parquet", [("q", "x", -1.0), ("q", "y", -2.0)])
    scores = compare(str(a), str(a)).scores
    assert (scores.max_absolute, scores.max_query_id, scores.max_doc_id) == (0.0, None, None)


def test_another_column_is_compared_on_request(tmp_path: Path) -> None:
    rows: list[Row] = [("q", "x", -1.0), ("q", "y", -2.0)]
    a = write_scored(tmp_path / "a.parquet", rows, {"bm25": [1.0, 2.0]})
    b = write_scored(tmp_path / "b.parquet", rows, {"bm25": [1.0, 5.0]})
    qrels = write_lines(tmp_path / "qrels", "q 0 y 1")
    found = compare(str(a), str(b), score_column="bm25", qrels_file=str(qrels))
    assert found.scores.max_absolute == 3.0
    assert found.quality is not None
    assert found.quality.baseline is not None
    assert (found.quality.run.mean, found.quality.baseline.mean) == (1.0, 1.0)


def test_quality_is_that_of_b_with_a_as_the_baseline(tmp_path: Path) -> None:
    a = write_scored(tmp_path / "a.parquet", [("q", "x", -1.0), ("q", "y", -2.0)])
    b = write_scored(tmp_path / "b.parquet", [("q", "x", -2.0), ("q", "y", -1.0)])
    qrels = write_lines(tmp_path / "qrels", "q 0 y 1")
    quality = compare(str(a), str(b), qrels_file=str(qrels)).quality
    assert quality is not None
    assert quality.baseline is not None
    assert quality.run.mean == 1.0
    assert quality.baseline.mean == pytest.approx(0.6309, abs=1e-4)


def test_outputs_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    a = write_scored(tmp_path / "a.parquet", [("q", "x", -1.0)])
    b = write_scored(tmp_path / "b.parquet", [("q", "x", None), ("q", "y", -1.0)])
    with pytest.raises(ConfigError, match="no pair is scored by both"):
        compare(str(a), str(b))
    twice = write_scored(tmp_path / "twice.parquet", [("q", "x", -1.0), ("q", "x", -1.0)])
    with pytest.raises(ShardError, match=r"twice\.parquet: 1 pairs have several scores"):
        compare(str(a), str(twice))


def test_quality_spills_to_the_folder_that_was_given(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "a.parquet", [("q", "a", -1.0), ("q", "b", -2.0)])
    temp_folder, qrels = tmp_path / "temp", tmp_path / "qrels"
    temp_folder.mkdir()
    # The judgements are read once the outputs are compared: by then the folder is gone.
    with (
        feeding(qrels, "q 0 a 1\n", before=temp_folder.rmdir),
        pytest.raises(ConfigError, match=r"temp: cannot hold temporary files: No such file"),
    ):
        compare(str(scored), str(scored), qrels_file=str(qrels), temp_folder=str(temp_folder))
