from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.ranking.evaluate import bootstrap_means, evaluate, p_value, write_per_query
from rgpt_batch.ranking.rank import rank
from tests.ranking.files import read_scores, write_lines, write_scored

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT.parent / "shared" / "data"

_DOC_IDS = ["a", "b", "B", "d10", "d9", "é", "z"]


def means(run: Path, qrels: Path, metrics: str = "nDCG@10") -> dict[str, float]:
    found = evaluate(str(run), str(qrels), metrics=metrics)
    return {result.metric: result.run.mean for result in found.metrics}


def trec_eval(run: Path, qrels: Path, measure: str) -> dict[str, float]:
    judged: dict[str, dict[str, int]] = {}
    for line in qrels.open():
        query_id, _, doc_id, relevance = line.split()
        judged.setdefault(query_id, {})[doc_id] = int(relevance)
    values = pytrec_eval.RelevanceEvaluator(judged, {measure}).evaluate(read_scores(run))
    return {query_id: next(iter(metrics.values())) for query_id, metrics in values.items()}


def test_metrics_are_those_calculated_by_hand(tmp_path: Path) -> None:
    scored = write_scored(
        tmp_path / "scored.parquet",
        [("q1", "c", -3.0), ("q1", "a", -1.0), ("q1", "b", -2.0), ("q2", "a", -1.0)],
    )
    qrels = write_lines(
        tmp_path / "qrels", "q1 0 b 3", "q1 0 c 1", "q1 0 x 2", "q2 0 a 0", "q2 0 y 1", "q3 0 a 1"
    )
    # q1 is ranked a b c with grades 0 3 1, and x (2) is not found. q2 finds nothing, q3 has no
    # results; both count 0.
    dcg = 3 / math.log2(3) + 1 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert means(scored, qrels, "nDCG@10,RR@10,R@100,AP,RR@1,P@2,AP(rel=2)") == pytest.approx(
        {
            "nDCG@10": dcg / ideal / 3,
            "RR@10": 1 / 2 / 3,
            "R@100": 2 / 3 / 3,
            "AP": (1 / 2 + 2 / 3) / 3 / 3,
            "RR@1": 0,
            "P@2": 1 / 2 / 3,
            "AP(rel=2)": (1 / 2) / 2 / 3,
        }
    )


def test_demo_has_the_bm25_quality_that_its_readme_states(tmp_path: Path) -> None:
    ranking, run = tmp_path / "bm25.parquet", tmp_path / "bm25.trec"
    demo = [str(ROOT / "demo" / "pairs")]
    rank(demo, str(ranking), top_k=100, score_column="bm25_score")
    rank(demo, str(run), top_k=100, score_column="bm25_score", run_format="trec")
    qrels = ROOT / "demo" / "qrels.tsv"
    by_trec_eval = trec_eval(run, qrels, "ndcg_cut.10")
    assert means(ranking, qrels)["nDCG@10"] == pytest.approx(0.6484, abs=5e-5)
    assert means(run, qrels) == means(ranking, qrels)
    assert np.mean(list(by_trec_eval.values())) == pytest.approx(means(run, qrels)["nDCG@10"])


@pytest.mark.parametrize(
    ("name", "expected"), [("dl19", 0.5058), ("scifact", 0.6769), ("hotpotqa100", 0.7563)]
)
def test_bm25_of_evaluation_sets_has_its_published_quality(
    name: str, expected: float, tmp_path: Path
) -> None:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; test_demo_has_the_bm25_quality_… holds the contract")
    pairs = pq.read_table(folder / "pairs.parquet", columns=["query_id", "doc_id", "bm25_rank"])
    pq.write_table(pairs.rename_columns(["query_id", "doc_id", "rank"]), tmp_path / "run.parquet")
    found = means(tmp_path / "run.parquet", folder / "qrels.tsv")
    assert round(found["nDCG@10"], 4) == expected


@settings(max_examples=40, deadline=None)
@given(
    scores=st.dictionaries(
        st.sampled_from(_DOC_IDS),
        # Two of these differ in float64 only, which trec_eval does not see.
        st.sampled_from(["-1", "-1.000000000001", "-2", "-2.5e-1"]),
        min_size=1,
    ),
    relevant=st.sets(st.sampled_from(_DOC_IDS), min_size=1),
    measure=st.sampled_from([("nDCG@10", "ndcg_cut.10"), ("RR", "recip_rank"), ("AP", "map")]),
)
def test_trec_run_with_ties_has_the_values_of_trec_eval(
    scores: dict[str, str], relevant: set[str], measure: tuple[str, str]
) -> None:
    with TemporaryDirectory() as name:
        run = write_lines(Path(name, "run"), *(f"q Q0 {d} 1 {s} x" for d, s in scores.items()))
        qrels = write_lines(Path(name, "qrels"), *(f"q 0 {doc_id} 1" for doc_id in relevant))
        expected = trec_eval(run, qrels, measure[1])["q"]
        assert means(run, qrels, measure[0])[measure[0]] == pytest.approx(expected)


def test_tie_goes_to_the_larger_doc_id_in_a_trec_run_and_to_the_smaller_in_scored_pairs(
    tmp_path: Path,
) -> None:
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    foreign = write_lines(tmp_path / "foreign", "q Q0 a 1 -1 x", "q Q0 b 2 -1 x")
    scored = write_scored(tmp_path / "scored.parquet", [("q", "b", -1.0), ("q", "a", -1.0)])
    assert (
        means(foreign, qrels, "RR@10")["RR@10"]
        == 0.5
        == trec_eval(foreign, qrels, "recip_rank")["q"]
    )
    assert means(scored, qrels, "RR@10")["RR@10"] == 1.0
    # What `rank` makes of the scored pairs says the same to everyone.
    for run_format in ("trec", "parquet"):
        rank([str(scored)], str(tmp_path / "run"), top_k=10, run_format=run_format)
        assert means(tmp_path / "run", qrels, "RR@10")["RR@10"] == 1.0
        if run_format == "trec":
            assert trec_eval(tmp_path / "run", qrels, "recip_rank")["q"] == 1.0


def test_rejected_pairs_are_evaluated_last(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", None), ("q", "b", -9.0)])
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    assert means(scored, qrels, "RR@10")["RR@10"] == 0.5


def test_rank_that_was_passed_through_does_not_order_scored_pairs(tmp_path: Path) -> None:
    scored = write_scored(
        tmp_path / "scored.parquet", [("q", "a", -1.0), ("q", "b", -2.0)], {"rank": [2, 1]}
    )
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    assert means(scored, qrels, "RR@10")["RR@10"] == 1.0


def test_integer_ids_match_judgements(tmp_path: Path) -> None:
    table = pa.table({"query_id": [7], "doc_id": [11], "rank": [1]})
    pq.write_table(table, tmp_path / "run.parquet")
    qrels = write_lines(tmp_path / "qrels", "7 0 11 1")
    assert means(tmp_path / "run.parquet", qrels, "RR@10")["RR@10"] == 1.0


def test_more_queries_than_one_call_evaluates(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [(f"q{i}", "a", -1.0) for i in range(1200)])
    qrels = write_lines(tmp_path / "qrels", *(f"q{i} 0 {'ab'[i % 2]} 1" for i in range(1500)))
    found = evaluate(str(scored), str(qrels), metrics="RR@10")
    assert found.num_queries_without_results == 300
    assert found.metrics[0].run.mean == 600 / 1500


def test_metrics_keep_the_order_asked_for_and_appear_once(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0)])
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    asked = "RR@10, nDCG(gains={0:0,1:5},cutoff=3),MRR@10,AP,"
    assert list(means(scored, qrels, asked)) == ["RR@10", "nDCG(gains={1:5})@3", "AP"]


@pytest.mark.parametrize("metrics", ["", "ndcg@10", "nDCG@", "nDCG(depth=1)", "P", "ERR@10"])
def test_unknown_metric_is_refused_with_an_example(tmp_path: Path, metrics: str) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0)])
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    with pytest.raises(ConfigError, match=r"--metrics '.*e\.g\. nDCG@10"):
        evaluate(str(scored), str(qrels), metrics=metrics)


def test_run_without_judged_queries_or_with_a_pair_twice_is_refused(tmp_path: Path) -> None:
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    other = write_lines(tmp_path / "other", "Q Q0 a 1 -1 x")
    with pytest.raises(ConfigError, match=r"other: none of its queries is judged.*'q'"):
        evaluate(str(other), str(qrels))
    twice = write_lines(tmp_path / "twice", "q Q0 a 1 -1 x", "q Q0 a 2 -2 x")
    with pytest.raises(ShardError, match="twice: 1 pairs have several scores"):
        evaluate(str(twice), str(qrels))
    infinite = write_lines(tmp_path / "infinite", "q Q0 a 1 -inf x")
    with pytest.raises(ShardError, match="infinite:1: the score is -inf"):
        evaluate(str(infinite), str(qrels))


def test_difference_to_the_baseline_is_paired_by_query(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    pairs = [(f"q{q}", f"d{d}") for q in range(40) for d in range(20)]
    qrels = write_lines(
        tmp_path / "qrels", *(f"{q} 0 {d} {generator.integers(2)}" for q, d in pairs)
    )
    files = [
        write_scored(tmp_path / name, [(q, d, -float(generator.random())) for q, d in pairs])
        for name in ("run.parquet", "baseline.parquet")
    ]
    found = evaluate(str(files[0]), str(qrels), baseline=str(files[1]), metrics="AP,nDCG@10")
    assert found.baseline_per_query is not None
    for i, result in enumerate(found.metrics):
        run, baseline = found.per_query[:, i], found.baseline_per_query[:, i]
        assert result.baseline is not None
        assert result.difference is not None
        assert result.difference.mean == pytest.approx(run.mean() - baseline.mean())
        assert result.p_value == pytest.approx(ttest_rel(run, baseline).pvalue)
        # What a normal distribution of the mean gives, within a tenth.
        standard_error = (run - baseline).std(ddof=1) / math.sqrt(40)
        width = result.difference.high - result.difference.low
        assert width == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
        assert result.difference.low < result.difference.mean < result.difference.high
    same = evaluate(str(files[0]), str(qrels), baseline=str(files[0]), metrics="AP")
    assert same.metrics[0].p_value == 1.0
    assert evaluate(str(files[0]), str(qrels), metrics="AP").metrics[0].run == same.metrics[0].run


def test_bootstrap_draws_whole_queries_with_replacement() -> None:
    values = np.stack([np.arange(5.0), 10 * np.arange(5.0)], axis=1)
    resampled = bootstrap_means(values)
    assert resampled.shape == (10_000, 2)
    np.testing.assert_allclose(resampled[:, 1], 10 * resampled[:, 0])
    # The mean of five draws from 0 … 4 has mean 2 and variance 2 / 5.
    assert resampled[:, 0].mean() == pytest.approx(2, abs=0.02)
    assert resampled[:, 0].var() == pytest.approx(0.4, abs=0.02)


def test_p_value_without_variance_or_without_queries() -> None:
    assert p_value(np.zeros(3)) == 1.0
    assert p_value(np.full(3, 0.5)) == 0.0
    assert p_value(np.ones(1)) is None


def test_table_per_query_holds_every_judged_query(tmp_path: Path) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q1", "b", -1.0), ("q1", "a", -2.0)])
    baseline = write_scored(tmp_path / "base.parquet", [("q2", "a", -1.0)])
    qrels = write_lines(tmp_path / "qrels", "q1 0 a 1", "q2 0 a 1")
    found = evaluate(str(scored), str(qrels), baseline=str(baseline), metrics="RR@10,P@1")
    write_per_query(found, str(tmp_path / "table.tsv"))
    assert (tmp_path / "table.tsv").read_text().splitlines() == [
        "query_id\tRR@10\tP@1\tRR@10 baseline\tP@1 baseline",
        "q1\t0.500000\t0.000000\t0.000000\t0.000000",
        "q2\t0.000000\t0.000000\t1.000000\t1.000000",
    ]
