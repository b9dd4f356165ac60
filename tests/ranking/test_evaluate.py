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
from rgpt_batch.ranking.estimates import bootstrap_means, p_value
from rgpt_batch.ranking.evaluate import evaluate, write_per_query
from rgpt_batch.ranking.rank import rank
from tests.ranking.files import Row, read_scores, write_lines, write_scored

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


def test_tie_goes_to_the_larger_doc_id_wherever_a_ranking_is_read_or_written(
    tmp_path: Path,
) -> None:
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    foreign = write_lines(tmp_path / "foreign", "q Q0 a 1 -1 x", "q Q0 b 2 -1 x")
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0), ("q", "b", -1.0)])
    ranks = pa.table({"query_id": ["q", "q"], "doc_id": ["a", "b"], "rank": [1, 1]})
    pq.write_table(ranks, tmp_path / "ranks.parquet")
    by_trec_eval = trec_eval(foreign, qrels, "recip_rank")["q"]
    assert by_trec_eval == 0.5
    for run in (foreign, scored, tmp_path / "ranks.parquet"):
        assert means(run, qrels, "RR@10")["RR@10"] == by_trec_eval
    # What `rank` makes of the scored pairs says the same to everyone.
    for run_format in ("trec", "parquet"):
        rank([str(scored)], str(tmp_path / "run"), top_k=10, run_format=run_format)
        assert means(tmp_path / "run", qrels, "RR@10")["RR@10"] == by_trec_eval
        if run_format == "trec":
            assert trec_eval(tmp_path / "run", qrels, "recip_rank")["q"] == by_trec_eval


def test_queries_whose_cut_parts_equal_scores_are_counted_for_every_cut(tmp_path: Path) -> None:
    # a: 3 2 2 1, b: 1 1, c: no ties, d: rejected pairs, none of which is better than another.
    rows: list[Row] = [
        *(("a", f"d{i}", score) for i, score in enumerate([-3.0, -2.0, -1.0, -2.0])),
        *(("b", f"d{i}", -1.0) for i in range(2)),
        *(("c", f"d{i}", -float(i)) for i in range(5)),
        *(("d", f"d{i}", None) for i in range(3)),
        *(("unjudged", f"d{i}", -1.0) for i in range(9)),
    ]
    scored = write_scored(tmp_path / "scored.parquet", rows)
    run = write_lines(
        tmp_path / "run",
        *(f"{q} Q0 {d} 1 {-9 if s is None else s} x" for q, d, s in rows),
        # In float64 alone these differ, which trec_eval does not see.
        "e Q0 x 1 -1 x",
        "e Q0 y 1 -1.000000000001 x",
    )
    qrels = write_lines(tmp_path / "qrels", *(f"{query_id} 0 d0 1" for query_id in "abcde"))
    metrics = "AP,P@2,nDCG@10,RR@1,nDCG@2"
    found = evaluate(scored, qrels, baseline=run, metrics=metrics)
    assert found.num_tied_queries == {1: 2, 2: 2, 10: 0}
    assert found.baseline_num_tied_queries == {1: 3, 2: 2, 10: 0}
    assert evaluate(run, qrels, metrics="AP").num_tied_queries == {}
    # `rank` has decided: its ranks have no ties.
    rank([str(scored)], tmp_path / "ranking.parquet", top_k=9)
    ranked = evaluate(tmp_path / "ranking.parquet", qrels, metrics=metrics)
    assert ranked.num_tied_queries == {1: 0, 2: 0, 10: 0}
    assert [r.run for r in ranked.metrics] == [r.run for r in found.metrics]


def test_run_and_baseline_are_ranked_by_the_columns_that_are_named(tmp_path: Path) -> None:
    rows: list[Row] = [("q", "a", -1.0), ("q", "b", -2.0)]
    scored = write_scored(tmp_path / "scored.parquet", rows, {"bm25": [1.0, 2.0], "rank": [1, 2]})
    pairs = pq.read_table(scored, columns=["query_id", "doc_id", "bm25", "rank"])
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    found = evaluate(
        scored,
        qrels,
        baseline=tmp_path / "pairs.parquet",
        baseline_score_column="bm25",
        metrics="RR@10",
    ).metrics[0]
    assert found.baseline is not None
    assert (found.run.mean, found.baseline.mean) == (1.0, 0.5)
    # The ranking's `rank` counts where no column is named.
    assert means(tmp_path / "pairs.parquet", qrels, "RR@10") == {"RR@10": 1.0}
    by_column = evaluate(scored, qrels, score_column="bm25", metrics="RR@10")
    assert by_column.metrics[0].run.mean == 0.5


def test_score_column_that_is_not_there_is_refused_with_the_option_that_names_it(
    tmp_path: Path,
) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0)])
    pairs = write_scored(tmp_path / "pairs.parquet", [("q", "a", -1.0)])
    pq.write_table(pq.read_table(pairs, columns=["query_id", "doc_id"]), pairs)
    run = write_lines(tmp_path / "run", "q Q0 a 1 -1 x")
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    with pytest.raises(ShardError, match=r"no column 'score'.* Name one of these with --score-col"):
        evaluate(pairs, qrels)
    with pytest.raises(ShardError, match=r"pairs\.parquet: .* with --baseline-score-column, or"):
        evaluate(scored, qrels, baseline=pairs)
    with pytest.raises(ConfigError, match=r"a TREC run has no columns\. Leave --score-column out"):
        evaluate(run, qrels, score_column="score")


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


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("", "names no metric"),
        ("RR,ndcg@10", "--metrics 'ndcg@10': measure not found: ndcg"),
        ("nDCG@", "--metrics 'nDCG@': problem parsing measure"),
        ("nDCG(depth=1)", "unsupported params found: ['depth']"),
        ("P", "the parameter cutoff is missing"),
        # These would end the process.
        ("P@0", "the cutoff must be from 1 to 2,147,483,647"),
        ("Success@99999999999", "the cutoff must be from 1 to 2,147,483,647"),
        ("AP(rel=0)", "relevance_level should be positive"),
        ("nDCG(gains={1:2.5})", "Expected relevance to be integer"),
    ],
)
def test_unknown_metric_is_refused_with_an_example(tmp_path: Path, metrics: str, said: str) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0)])
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    with pytest.raises(ConfigError) as refused:
        evaluate(str(scored), str(qrels), metrics=metrics)
    assert said in str(refused.value)
    assert str(refused.value).endswith("e.g. nDCG@10,RR@10,R@100,AP,P@5,AP(rel=2).")
    assert ".." not in str(refused.value)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("ERR@10", "ir_measures has it from gdeval, which would start another program"),
        ("nERR_IA@10", "ir_measures has it from pyndeval"),
        ("nDCG(dcg='exp-log2')@10", "ir_measures has it from gdeval and trectools and ranx"),
        ("RR(judged_only=True)@10", "no provider of ir_measures computes it with these parameters"),
    ],
)
def test_metric_that_is_not_computed_here_is_refused_with_its_provider_and_with_what_there_is(
    tmp_path: Path, metrics: str, said: str
) -> None:
    scored = write_scored(tmp_path / "scored.parquet", [("q", "a", -1.0)])
    qrels = write_lines(tmp_path / "qrels", "q 0 a 1")
    with pytest.raises(ConfigError) as refused:
        evaluate(str(scored), str(qrels), metrics=metrics)
    message = str(refused.value)
    assert message.startswith(f"--metrics '{metrics}': {said}")
    assert "What is computed here: P, RR, Rprec, AP, nDCG, R, " in message
    assert message.endswith(", Judged.")


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


def test_unjudged_documents_among_the_first_ten_are_counted(tmp_path: Path) -> None:
    """Of q's twelve documents the first ten count, of r's two both; s has no results."""
    rows = [("q", f"d{i:02d}", -float(i)) for i in range(12)]
    scored = write_scored(tmp_path / "scored.parquet", [*rows, ("r", "a", -1.0), ("r", "b", -2.0)])
    judged = ("q 0 d00 1", "q 0 d05 0", "q 0 d11 1", "r 0 b 0", "s 0 a 1")
    baseline = write_lines(tmp_path / "run.trec", "q Q0 d00 1 2.5 x", "q Q0 d07 2 1.5 x")
    found = evaluate(
        str(scored), str(write_lines(tmp_path / "qrels", *judged)), baseline=str(baseline)
    )
    assert found.unjudged_fraction == pytest.approx(9 / 12)
    assert found.baseline_unjudged_fraction == 0.5
    assert found.top == {"q": tuple(f"d{i:02d}" for i in range(10)), "r": ("a", "b")}
    assert found.baseline_top == {"q": ("d00", "d07")}
