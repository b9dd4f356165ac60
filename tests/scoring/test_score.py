"""The one mean in the program, and what logits of labels become."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from rgpt_batch.errors import EngineOutputError
from rgpt_batch.records import LabelLogits, LabelPrompt, QueryLogprobs, TokenizedPair
from rgpt_batch.scoring.score import to_score

PAIR = TokenizedPair(
    token_ids=np.arange(10, dtype=np.int32),
    query_start=6,
    num_document_tokens=3,
    num_dropped_document_tokens=2,
)
PROMPT = LabelPrompt(
    token_ids=np.arange(10, dtype=np.int32),
    second_segment=5,
    num_query_tokens=4,
    num_dropped_query_tokens=1,
    num_document_tokens=3,
    num_dropped_document_tokens=2,
)


def _logprobs(*values: float) -> QueryLogprobs:
    return QueryLogprobs(values=np.array(values, dtype=np.float32))


def _logits(*values: float) -> LabelLogits:
    return LabelLogits(values=np.array(values, dtype=np.float32))


def test_score_is_the_mean_over_query_tokens_and_the_sum_stands_beside_it() -> None:
    score = to_score(PAIR, _logprobs(-1.0, -2.0, -0.5, 0.0))
    assert score.value == -0.875
    assert score.sum_logprob == -3.5
    assert score.num_query_tokens == 4
    assert score.num_document_tokens == 3
    assert score.num_dropped_document_tokens == 2


def test_long_queries_are_summed_without_float32_error() -> None:
    pair = TokenizedPair(
        token_ids=np.zeros(1_000_001, dtype=np.int32),
        query_start=1,
        num_document_tokens=0,
        num_dropped_document_tokens=0,
    )
    values = np.full(1_000_000, -0.1, dtype=np.float32)
    assert to_score(pair, QueryLogprobs(values=values)).value == pytest.approx(
        float(np.float32(-0.1)), rel=1e-12
    )


@pytest.mark.parametrize("num_values", [0, 3, 5])
def test_wrong_number_of_values_is_refused(num_values: int) -> None:
    with pytest.raises(EngineOutputError, match=rf"shape \({num_values},\) for 4 query tokens"):
        to_score(PAIR, _logprobs(*[-1.0] * num_values))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 0.02, 5.0])
def test_value_that_is_no_logprob_is_refused_with_the_likely_cause(value: float) -> None:
    with pytest.raises(EngineOutputError, match=r"not finite or above 0.*try model\.dtype"):
        to_score(PAIR, _logprobs(-1.0, -1.0, value, -1.0))


def test_rounding_just_above_zero_is_accepted() -> None:
    assert to_score(PAIR, _logprobs(0.001, 0.0, -1.0, -1.0)).sum_logprob == pytest.approx(-1.999)


# Logits of labels


def test_the_score_of_two_labels_is_the_log_probability_of_the_second() -> None:
    # The softmax of (1, 3), to more digits than float32 has.
    probability = Decimal(3).exp() / (Decimal(1).exp() + Decimal(3).exp())
    score = to_score(PROMPT, _logits(1.0, 3.0))
    assert score.value == pytest.approx(float(probability.ln()), rel=1e-14)
    assert score.logit == 2.0
    assert score.sum_logprob is None


def test_the_score_of_one_label_is_its_logit() -> None:
    for logit in (-11.5, 0.0, 7.25):
        score = to_score(PROMPT, _logits(logit))
        assert score.value == score.logit == logit
        assert score.sum_logprob is None


def test_token_counts_of_the_prompt_stand_beside_the_score() -> None:
    score = to_score(PROMPT, _logits(0.0, 0.0))
    assert (score.num_query_tokens, score.num_dropped_query_tokens) == (4, 1)
    assert (score.num_document_tokens, score.num_dropped_document_tokens) == (3, 2)
    assert score.value == pytest.approx(-math.log(2), rel=1e-14)


def test_scores_keep_the_order_of_margins_at_both_ends() -> None:
    margins = [-80.0, -40.0, -39.0, -17.0, 0.0, 16.0, 17.0, 18.0, 39.0, 40.0, 80.0]
    scores = [to_score(PROMPT, _logits(-margin / 2, margin / 2)) for margin in margins]
    assert [score.logit for score in scores] == margins
    # Also as the float32 that is written; a softmax in float32 is 1 from 17 on.
    written = np.array([score.value for score in scores], np.float32)
    assert (np.diff(written) > 0).all()
    assert written[-1] < 0
    assert written[0] == -80


def test_logits_far_from_zero_lose_no_digits_to_each_other() -> None:
    score = to_score(PROMPT, _logits(3e38, -3e38))
    assert score.value == score.logit == pytest.approx(-6e38, rel=1e-6)


@pytest.mark.parametrize("values", [(), (1.0, 2.0, 3.0)])
def test_another_number_of_logits_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(EngineOutputError, match="expected one or two finite numbers"):
        to_score(PROMPT, _logits(*values))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("other", [(), (1.0,)])
def test_a_logit_that_is_not_finite_is_refused_with_the_likely_cause(
    value: float, other: tuple[float, ...]
) -> None:
    with pytest.raises(EngineOutputError, match=r"dtype overflows: try model\.dtype"):
        to_score(PROMPT, _logits(*other, value))


def test_an_answer_of_the_other_kind_is_refused() -> None:
    with pytest.raises(EngineOutputError, match="QueryLogprobs is no answer to LabelPrompt"):
        to_score(PROMPT, _logprobs(-1.0, -1.0, -1.0, -1.0))
    with pytest.raises(EngineOutputError, match="LabelLogits is no answer to TokenizedPair"):
        to_score(PAIR, _logits(1.0))
