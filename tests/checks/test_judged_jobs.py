"""Jobs whose scores are made of logits of labels, checked and reported with the fake engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.checks.parity import compare_scores
from rgpt_batch.checks.verify import verify_output
from rgpt_batch.output import open_store
from rgpt_batch.report import gather, to_html
from tests.jobs import Score, Scored

WritePairs = Callable[..., Path]

PROMPT = "protocol={name: prompt, prompt: [{text: 'Q: {query} D: {document}'}]}"
ONE_LABEL = (PROMPT, "score={kind: classification, relevant: 0}")
TWO_LABELS = (PROMPT, "score={kind: label-tokens, relevant: 'yes', not_relevant: 'no'}")


@pytest.fixture(params=[ONE_LABEL, TWO_LABELS], ids=["one label", "two labels"])
def labels(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def _job(score_with_fake: Score, write_pairs: WritePairs, *overrides: str) -> Scored:
    shard = write_pairs([(f"query {row % 3}", f"document {row}") for row in range(40)])
    return score_with_fake(shard, overrides=overrides)


def _replace(part: Path, **columns: Any) -> None:
    """Write a file again with other values."""
    table = pq.read_table(part)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), pa.array(values, pa.float32()))
    pq.write_table(table, part)


def test_parity_and_verify_agree_with_themselves_and_name_the_right_unit(
    labels: tuple[str, ...], score_with_fake: Score, write_pairs: WritePairs
) -> None:
    job = _job(score_with_fake, write_pairs, "parity.num_pairs=12", *labels)
    parity = job.summary.parity
    assert parity is not None
    assert (parity.num_scored, parity.max_difference, parity.problems) == (12, 0.0, ())
    verified = verify_output(str(job.folder), num_rescored=30)
    assert (verified.problems, verified.num_rescored > 0) == ((), True)
    unit = "nats" if labels is TWO_LABELS else ""
    assert (parity.unit, verified.score_unit) == (unit, unit)
    assert ("at most 0 nats," in str(parity)) == (labels is TWO_LABELS)
    assert ("at most 0," in str(parity)) == (labels is ONE_LABEL)


def test_logits_may_be_above_0_and_log_probabilities_may_not(
    labels: tuple[str, ...], score_with_fake: Score, write_pairs: WritePairs
) -> None:
    job = _job(score_with_fake, write_pairs, *labels)
    scores = job.column("score")
    assert (max(scores) > 0) == (labels is ONE_LABEL)
    assert max(job.column("logit")) > 0 > min(job.column("logit"))
    (part,) = job.folder.glob("part-*.parquet")
    _replace(part, score=[abs(score) + 1 for score in scores])
    problems = verify_output(str(job.folder)).problems
    assert any("above 0" in problem for problem in problems) == (labels is TWO_LABELS)


def test_a_score_that_its_logit_contradicts_is_found(
    labels: tuple[str, ...], score_with_fake: Score, write_pairs: WritePairs
) -> None:
    job = _job(score_with_fake, write_pairs, *labels)
    (part,) = job.folder.glob("part-*.parquet")
    logits = [logit + 0.01 * (row == 7) for row, logit in enumerate(job.column("logit"))]
    _replace(part, logit=logits)
    problems = verify_output(str(job.folder)).problems
    assert any("a score is not what its logit says" in problem for problem in problems)


def test_wrong_logits_are_found_though_their_scores_fit(
    labels: tuple[str, ...], score_with_fake: Score, write_pairs: WritePairs
) -> None:
    job = _job(score_with_fake, write_pairs, *labels)
    (part,) = job.folder.glob("part-*.parquet")
    logits = np.array(job.column("logit")) + 0.1
    # The most certain pairs: their log-probabilities hardly move.
    assert logits.max() > 8
    scores = -np.logaddexp(0.0, -logits) if labels is TWO_LABELS else logits
    _replace(part, logit=logits, score=scores)
    found = [p for p in verify_output(str(job.folder), num_rescored=200).problems if "row " in p]
    certain = job.column("logit").index(max(job.column("logit")))
    assert any(f"row {certain} has logit" in problem for problem in found)


def test_a_file_without_logits_is_not_that_of_a_model_that_judges(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    job = _job(score_with_fake, write_pairs, *ONE_LABEL)
    (part,) = job.folder.glob("part-*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["logit"]), part)
    problems = verify_output(str(job.folder)).problems
    assert any("logit missing or of another type" in problem for problem in problems)


def test_the_report_says_what_the_score_is(
    labels: tuple[str, ...], score_with_fake: Score, write_pairs: WritePairs
) -> None:
    job = _job(score_with_fake, write_pairs, *labels)
    text = to_html(gather(open_store(str(job.folder))))
    assert ("score: logit of relevant" in text) == (labels is ONE_LABEL)
    assert ("score: log-probability of relevant, nats" in text) == (labels is TWO_LABELS)
    assert ("Score, nats" in text) == (labels is TWO_LABELS)
    assert "mean log-probability" not in text


def test_differences_of_logits_are_told_without_a_unit() -> None:
    def table(*scores: float) -> pa.Table:
        ids = [f"x{place}" for place in range(len(scores))]
        rejection = pa.nulls(len(scores), pa.string())
        columns = {"query_id": ids, "doc_id": ids, "score": scores, "rejection": rejection}
        return pa.table(columns)

    parity = compare_scores(table(7.0, 2.0), table(5.0, 2.0), tolerance=0.5, unit="")
    assert parity.problems[0].startswith("1 pairs are more than 0.5 off; the worst")
    assert parity.problems[1] == "the mean difference is 1, more than 0.125"
