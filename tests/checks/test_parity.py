"""The check of an engine against the reference before a job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rgpt_batch import JobConfig, load_config, run_job
from rgpt_batch.checks.parity import Parity, check_parity, compare_scores, require_parity
from rgpt_batch.checks.reference import default_tolerance
from rgpt_batch.errors import ParityError
from rgpt_batch.job.plan import plan_job
from rgpt_batch.output import open_store
from tests.jobs import Score, fake_config
from tests.models import fill_head, save_tiny_llama

WritePairs = Callable[..., Path]


def _scores(values: list[float | None]) -> pa.Table:
    return pa.table(
        {
            "query_id": [f"q{i}" for i in range(len(values))],
            "doc_id": [f"d{i}" for i in range(len(values))],
            "score": pa.array(values, pa.float32()),
            "rejection": pa.array(["EMPTY_QUERY" if v is None else None for v in values]),
        }
    )


def _compare(reference: list[float | None], engine: list[float | None], tolerance: float) -> Parity:
    return compare_scores(_scores(reference), _scores(engine), tolerance=tolerance)


def test_scores_within_the_tolerance_pass_and_are_described() -> None:
    parity = _compare([-1.0, -2.0, None, -3.0, -4.0], [-1.1, -2.0, None, -3.1, -3.0], 1.5)
    assert parity.problems == ()
    assert (parity.num_pairs, parity.num_scored) == (5, 4)
    assert parity.max_difference == pytest.approx(1.0)
    assert parity.mean_difference == pytest.approx(0.3)
    # One of six pairs of scores changes places.
    assert parity.kendall_tau == pytest.approx(4 / 6)
    assert "4 of 5 pairs scored" in str(parity)
    require_parity(parity)


def test_checks_of_one_output_leave_each_others_scores_alone(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    config = fake_config(tiny_tokenizer, "parity.num_pairs=4", "executor.max_workers=8")
    config, manifest = plan_job(config, [str(write_pairs(9))], str(tmp_path / "scored"))
    store = open_store(str(tmp_path / "scored"))
    alone = check_parity(config, manifest, store)
    others: list[Parity] = []

    def check_too(message: str) -> None:
        # The first has the reference's scores, and not yet the engine's.
        files = {file: file.stat().st_ino for file in tmp_path.rglob("part-*.parquet")}
        if len(files) == 1 and not others:
            others.append(check_parity(config, manifest, store))
            assert {file: file.stat().st_ino for file in files} == files

    assert check_parity(config, manifest, store, check_too) == alone
    assert others == [alone]
    assert list(tmp_path.rglob("part-*.parquet")) == []
    assert list((tmp_path / "scored" / "_rgpt" / "staging").iterdir()) == []


def test_a_check_that_is_stopped_leaves_no_scores_behind(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    def stop(message: str) -> None:
        if list(tmp_path.rglob("part-*.parquet")):
            raise KeyboardInterrupt

    config = fake_config(tiny_tokenizer, "parity.num_pairs=4")
    config, manifest = plan_job(config, [str(write_pairs(9))], str(tmp_path / "scored"))
    with pytest.raises(KeyboardInterrupt):
        check_parity(config, manifest, open_store(str(tmp_path / "scored")), stop)
    assert list((tmp_path / "scored" / "_rgpt" / "staging").iterdir()) == []


def test_kendalls_tau_is_that_of_scipy_with_ties_too() -> None:
    from scipy.stats import kendalltau

    a, b = [-1.0, -2.0, -2.0, -5.0, -3.0, -7.0], [-1.5, -2.0, -1.0, -5.0, -5.0, -2.5]
    assert _compare([*a], [*b], 9.0).kendall_tau == pytest.approx(kendalltau(a, b).statistic)


def test_a_pair_beyond_the_tolerance_is_named() -> None:
    parity = _compare([-1.0, -2.0, -3.0], [-1.0, -2.7, -3.0], 0.5)
    assert len(parity.problems) == 2
    assert parity.problems[0].startswith(
        "1 pairs are more than 0.5 nats off; the worst, query 'q1'"
    )
    with pytest.raises(ParityError, match="nothing was scored:\n  1 pairs are more than"):
        require_parity(parity)


def test_a_shift_of_all_scores_is_found_though_each_is_within_the_tolerance() -> None:
    expected = [-1.0 - i / 10 for i in range(50)]
    parity = _compare([*expected], [value - 0.3 for value in expected], 0.6)
    assert parity.problems == ("the mean difference is 0.3 nats, more than 0.15",)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_score_that_is_not_finite_is_a_problem(value: float) -> None:
    assert "a score is not finite" in _compare([-1.0, -2.0], [-1.0, value], 1e9).problems


def test_constant_scores_are_a_problem_on_either_side() -> None:
    problems = _compare([-2.0, -2.0], [-2.0, -2.0], 1.0).problems
    assert [problem.split(" are ")[0] for problem in problems] == [
        "all scores of the engine",
        "all scores of the reference",
    ]
    assert _compare([-2.0], [-2.0], 1.0).problems == ()


def test_different_rejections_are_a_problem() -> None:
    assert _compare([-1.0, None], [-1.0, -2.0], 1.0).problems == ("the two reject different pairs",)


def test_a_job_with_parity_gives_the_same_rows_and_records_the_numbers(
    score_with_fake: Score,
    write_pairs: WritePairs,
) -> None:
    path = write_pairs(40)
    plain = score_with_fake(path, name="plain")
    checked = score_with_fake(path, overrides=("parity.num_pairs=12",), name="checked")
    assert checked.table.equals(plain.table)
    assert plain.summary.parity is None
    parity = checked.summary.parity
    assert parity is not None
    assert (parity.num_pairs, parity.num_scored, parity.max_difference) == (12, 12, 0.0)
    (record,) = (checked.folder / "_rgpt" / "runs").iterdir()
    recorded = json.loads(record.read_text())["parity"]
    assert recorded["kendall_tau"] == 1.0
    assert recorded["tolerance"] == 0.001
    # The check is no part of what the job is, and a complete job needs none.
    again = score_with_fake(path, overrides=("parity.num_pairs=7",), name="checked")
    assert (again.summary.num_rows_scored, again.summary.parity) == (0, None)


def test_an_input_that_gives_no_score_has_nothing_to_compare(
    score_with_fake: Score,
    write_pairs: WritePairs,
) -> None:
    path = write_pairs([(None, "a"), ("", "b")])
    summary = score_with_fake(path, overrides=("parity.num_pairs=5",)).summary
    assert summary.parity is not None
    assert (summary.exit_code, summary.parity.num_pairs, summary.parity.problems) == (0, 0, ())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.0, "all scores of the engine are -6.9"),
        (float("nan"), "engine transformers cannot score .* not finite"),
    ],
)
def test_a_model_that_tells_pairs_apart_by_nothing_stops_the_job_before_it_starts(
    write_pairs: WritePairs, tmp_path: Path, value: float, message: str
) -> None:
    model = save_tiny_llama(tmp_path / "model")
    fill_head(model, value)
    settings = ("engine.method=transformers", "executor.kind=local", "parity.num_pairs=4")
    config = load_config(None, (f"model.name={model}", *settings))
    with pytest.raises(ParityError, match=message):
        run_job(config, [str(write_pairs(10))], str(tmp_path / "scored"), quiet=True)
    assert list((tmp_path / "scored").glob("part-*.parquet")) == []
    (record,) = (tmp_path / "scored" / "_rgpt" / "runs").iterdir()
    assert json.loads(record.read_text())["state"] == "failed"


@pytest.mark.vllm
def test_vllm_passes_and_a_vllm_that_computes_another_model_does_not(
    write_pairs: WritePairs, tiny_llama: Path, tmp_path: Path
) -> None:
    def run(name: str, vllm_args: str) -> Any:
        settings = (
            f"model.name={tiny_llama}",
            "model.dtype=float32",
            "protocol.max_length=128",
            "engine.enforce_eager=true",
            "engine.kv_cache_bytes=67108864",
            f"engine.vllm_args={vllm_args}",
            "executor.kind=local",
            "parity.num_pairs=8",
        )
        config = load_config(None, settings)
        return run_job(config, [str(write_pairs(20))], str(tmp_path / name), quiet=True)

    parity = run("right", "{}").parity
    assert parity.num_scored == 8
    assert 0 < parity.max_difference < 1e-3
    with pytest.raises(ParityError, match="nats off; the worst, query 'q"):
        run("wrong", "{hf_overrides: {rms_norm_eps: 0.05}}")
    assert list((tmp_path / "wrong").glob("part-*.parquet")) == []


def test_logits_in_16_bit_may_be_off_by_a_share_of_their_spread() -> None:
    def tolerance(dtype: str, kind: str, expected: list[float | None]) -> float:
        part = {"text": "{query} {document}"}
        labels = {"kind": kind, "relevant": 0} if kind != "query-likelihood" else {"kind": kind}
        protocol = {"name": "prompt", "prompt": [part]} if "relevant" in labels else {}
        settings = {"model": {"name": "m", "dtype": dtype}, "protocol": protocol, "score": labels}
        return default_tolerance(JobConfig.model_validate(settings), expected)

    far: list[float | None] = [-4.0, None, 4.0]
    near: list[float | None] = [-0.4, 0.4]
    assert tolerance("float16", "classification", far) == pytest.approx(0.4)
    assert tolerance("bfloat16", "classification", far) == pytest.approx(2.4)
    assert tolerance("auto", "classification", far) == pytest.approx(2.4)
    assert tolerance("float16", "classification", near) == 0.1
    assert tolerance("bfloat16", "classification", []) == 0.6
    # Log-probabilities of tokens have one scale, and float32 rounds nothing that would show.
    assert tolerance("float32", "classification", far) == 0.001
    assert tolerance("float16", "query-likelihood", far) == 0.1
