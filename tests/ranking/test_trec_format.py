from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.importing.readers.trec import read_qrels, read_run
from rgpt_batch.ranking.trec import write_run
from tests.ranking.files import read_scores, trec_eval_order, write_lines

_FINITE = st.floats(-1e6, 1e6) | st.sampled_from([0.0, -1.0, -1.0 - 1e-12, -1e-30, 1e-3])


@settings(max_examples=100, deadline=None)
@given(scores=st.lists(_FINITE, max_size=12), num_rejected=st.integers(0, 3), names=st.randoms())
def test_trec_eval_ranks_a_written_run_as_it_stands(
    scores: list[float], num_rejected: int, names: object
) -> None:
    ordered: list[float | None] = [*sorted(scores, reverse=True), *[None] * num_rejected]
    doc_ids = [f"d{i}" for i in range(len(ordered))]
    names.shuffle(doc_ids)  # type: ignore[attr-defined]
    rows = [("q", doc_id, i + 1, ordered[i]) for i, doc_id in enumerate(doc_ids)]
    with TemporaryDirectory() as folder:
        path = Path(folder, "run")
        assert write_run(rows, path, "tag") == len(rows)
        written = read_scores(path).get("q", {})
    assert list(written) == doc_ids
    assert trec_eval_order(written) == doc_ids
    assert (np.diff(np.array([*written.values()], np.float32)) < 0).all()


def test_scores_are_written_exactly_to_float32_where_they_differ(tmp_path: Path) -> None:
    scores = np.sort(np.random.default_rng(0).normal(-3, 1, 500).astype(np.float32))[::-1]
    rows = [("q", f"d{i}", i + 1, float(score)) for i, score in enumerate(scores)]
    write_run(rows, tmp_path / "run", "tag")
    written = np.array([*read_scores(tmp_path / "run")["q"].values()], np.float32)
    np.testing.assert_array_equal(written, scores)


def test_each_query_starts_anew(tmp_path: Path) -> None:
    rows = [("q1", "a", 1, -5.0), ("q2", "a", 1, -1.0), ("q2", "b", 2, -1.0)]
    write_run(rows, tmp_path / "run", "mine")
    assert (tmp_path / "run").read_text() == (
        "q1 Q0 a 1 -5 mine\nq2 Q0 a 1 -1 mine\nq2 Q0 b 2 -1.00000012 mine\n"
    )


@pytest.mark.parametrize("tag", ["", "two words", " x"])
def test_tag_that_would_break_the_columns_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(ConfigError, match="tag"):
        write_run([], tmp_path / "run", tag)


def test_run_is_read_in_the_order_of_its_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "run", "q2 Q0 b 1 -1.5 x", "", "q1\tQ0\ta\t1\t2e3\tx")
    table = pa.Table.from_batches(read_run(str(path)))
    assert table.to_pylist() == [
        {"query_id": "q2", "doc_id": "b", "score": -1.5},
        {"query_id": "q1", "doc_id": "a", "score": 2000.0},
    ]


@pytest.mark.parametrize("line", ["q1 Q0 a 1 2.5", "q1 Q0 a 1 high x", "q1 0 a 1"])
def test_malformed_line_of_a_run_is_named(tmp_path: Path, line: str) -> None:
    path = write_lines(tmp_path / "run", "q1 Q0 b 1 3 x", line)
    with pytest.raises(ShardError, match=rf"run:2: .*found `{line}`"):
        list(read_run(str(path)))


def test_trec_and_beir_judgements_are_the_same(tmp_path: Path) -> None:
    trec = write_lines(tmp_path / "trec", "q1 0 a 2", "q1 0 b -1", "", "q2\t0\ta\t0")
    beir = write_lines(
        tmp_path / "beir", "query-id\tcorpus-id\tscore", "q1\ta\t2", "q1\tb\t-1", "q2\ta\t0"
    )
    assert read_qrels(str(trec)) == {"q1": {"a": 2, "b": -1}, "q2": {"a": 0}}
    assert read_qrels(str(beir)) == read_qrels(str(trec))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no judgement"),
        (["q1 0 a 1", "q1 0 a"], ":2: expected"),
        (["q1 0 a high"], ":1: expected"),
        (["q1\ta\t1"], ":1: expected"),
        (["q1\ta\t1.0", "q1\tb\t2"], ":1: expected"),
        (["q1 0 a 1", "q1 0 a 1"], ":2: query 'q1' and document 'a' are judged twice"),
    ],
)
def test_unusable_judgements_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        read_qrels(str(write_lines(tmp_path / "qrels", *lines)))


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="nowhere: reading failed"):
        read_qrels(str(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ShardError, match="binary:1: not UTF-8"):
        read_qrels(str(tmp_path / "binary"))


def test_byte_order_marks_are_no_part_of_an_id(tmp_path: Path) -> None:
    mark = "\ufeff"
    run = write_lines(tmp_path / "run", f"{mark}q1 Q0 a 1 3 x", f"{mark}q2 Q0 a 1 2 x")
    qrels = write_lines(tmp_path / "qrels", f"{mark}q1 0 a 1", f"{mark}q2 0 a 2")
    beir = write_lines(tmp_path / "beir", f"{mark}query-id\tcorpus-id\tscore", "q1\ta\t1")
    assert pa.Table.from_batches(read_run(str(run)))["query_id"].to_pylist() == ["q1", "q2"]
    assert read_qrels(str(qrels)) == {"q1": {"a": 1}, "q2": {"a": 2}}
    assert read_qrels(str(beir)) == {"q1": {"a": 1}}


def test_runs_and_judgements_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(gzip.compress(b"q1 Q0 a 1 3 x\r\n"))
    (tmp_path / "qrels").write_bytes(gzip.compress(b"q1 0 a 1\n"))
    assert pa.Table.from_batches(read_run(str(tmp_path / "run")))["score"].to_pylist() == [3.0]
    assert read_qrels(str(tmp_path / "qrels")) == {"q1": {"a": 1}}


@pytest.mark.parametrize("score", ["1e300", "-3.5e38", "inf", "nan"])
def test_score_that_float32_cannot_hold_is_named_with_its_line(tmp_path: Path, score: str) -> None:
    path = write_lines(tmp_path / "run", "q1 Q0 b 1 3.4e38 x", f"q1 Q0 a 2 {score} x")
    with pytest.raises(ShardError, match=rf"run:2: the score is {score}, expected a finite number"):
        list(read_run(str(path)))
    assert list(read_run(str(write_lines(tmp_path / "run", "q1 Q0 b 1 3.4e38 x"))))


@pytest.mark.parametrize("score", [1e300, -1e39])
def test_run_is_not_written_with_a_score_that_float32_cannot_hold(
    tmp_path: Path, score: float
) -> None:
    with pytest.raises(ConfigError, match="of query 'q' and document 'a' does not fit a TREC run"):
        write_run([("q", "a", 1, score)], tmp_path / "run", "tag")
