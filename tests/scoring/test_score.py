"""The one mean in the program."""

from __future__ import annotations

import numpy as np
import pytest

from rgpt_batch.errors import EngineOutputError
from rgpt_batch.records import QueryLogprobs, TokenizedPair
from rgpt_batch.scoring.score import to_score

PAIR = TokenizedPair(
    token_ids=np.arange(10, dtype=np.int32),
    query_start=6,
    num_document_tokens=3,
    num_dropped_document_tokens=2,
)


def _logprobs(*values: float) -> QueryLogprobs:
    return QueryLogprobs(values=np.array(values, dtype=np.float32))


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
