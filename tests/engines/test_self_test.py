"""The self-test lets right engines pass and catches those that would score wrong rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.engines.fake import FakeEngine
from rgpt_batch.engines.self_test import self_test
from rgpt_batch.errors import EngineOutputError, EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair
from rgpt_batch.scoring.score import MAX_LOGPROB, to_score
from tests.engines.configs import float32_config

CONFIG = float32_config(Path("none"), "fake")
# Two prompts fit, and a third begins.
STEP_TOKENS = 2048


class Altered(FakeEngine):
    """An engine whose answers go through alter(), which sees the pairs of one call."""

    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        answers = [answer.values for answer in super().score(pairs)]
        return [QueryLogprobs(values=v) for v in self.alter(pairs, answers)]

    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        return answers


class ShiftsRows(Altered):
    """Takes the row of a token for the row that predicts it, but only inside the query."""

    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [np.roll(values, 1) for values in answers]


class LosesTheRowsOfALaterStep(Altered):
    """Keeps the values of the step in which a prompt began, and fills up with their last one."""

    step = STEP_TOKENS

    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        room = self.step
        altered = []
        for pair, values in zip(pairs, answers, strict=True):
            num_lost = max(0, len(pair.token_ids) - room)
            room = room - len(pair.token_ids) if num_lost == 0 else self.step
            kept = values[: max(1, len(values) - num_lost)]
            altered.append(np.pad(kept, (0, len(values) - len(kept)), mode="edge"))
        return altered


class TakesAnotherPromptsRows(Altered):
    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [np.resize(answers[i - 1], len(values)) for i, values in enumerate(answers)]


class DropsARow(Altered):
    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [*answers[:-1], answers[-1][1:]]


class AnswersNaN(Altered):
    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [*answers[:-1], answers[-1] * np.nan]


class AnswersRawLogits(Altered):
    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [-values for values in answers]


class RoundsAboveZero(Altered):
    """Puts the likeliest token of every prompt above 0, as rounding in 16 bits may."""

    excess = 0.0

    def alter(self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [np.where(values == values.max(), self.excess, values) for values in answers]


@pytest.mark.parametrize("step_tokens", [96, 1024, 2048, 5000, 8192])
def test_an_engine_whose_tokens_depend_on_what_precedes_them_passes(step_tokens: int) -> None:
    self_test(FakeEngine(), CONFIG, step_tokens)


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        (ShiftsRows, "differ by"),
        (LosesTheRowsOfALaterStep, "differ by"),
        (TakesAnotherPromptsRows, "differ by"),
        (DropsARow, "lost query tokens"),
        (AnswersNaN, "gave logprobs from"),
        (AnswersRawLogits, "gave logprobs from"),
    ],
)
def test_an_engine_that_scores_wrong_rows_is_refused(engine: type[Altered], complaint: str) -> None:
    with pytest.raises(EngineStartError, match=complaint):
        self_test(engine(), CONFIG, STEP_TOKENS)


def test_logprobs_may_round_as_far_above_zero_as_scoring_lets_them() -> None:
    engine = RoundsAboveZero()
    engine.excess = 0.9 * MAX_LOGPROB
    self_test(engine, CONFIG, STEP_TOKENS)
    pair = TokenizedPair(
        token_ids=np.arange(9, dtype=np.int32),
        query_start=4,
        num_document_tokens=4,
        num_dropped_document_tokens=0,
    )
    to_score(pair, *engine.score([pair]))
    engine.excess = 1.1 * MAX_LOGPROB
    with pytest.raises(EngineStartError, match="gave logprobs from"):
        self_test(engine, CONFIG, STEP_TOKENS)
    with pytest.raises(EngineOutputError):
        to_score(pair, *engine.score([pair]))


@pytest.mark.parametrize("step_tokens", [96, 1000, 1024, 2048, 5000, 8192])
def test_one_prompt_crosses_the_end_of_a_step_inside_its_query(step_tokens: int) -> None:
    calls: list[Sequence[TokenizedPair]] = []

    class Records(Altered):
        def alter(
            self, pairs: Sequence[TokenizedPair], answers: list[np.ndarray]
        ) -> list[np.ndarray]:
            calls.append(pairs)
            return answers

    self_test(Records(), CONFIG, step_tokens)
    whole = calls[0]
    ends = np.cumsum([len(pair.token_ids) for pair in whole])
    assert ends[-1] > step_tokens
    start = ends[-1] - len(whole[-1].token_ids)
    assert start + whole[-1].query_start < step_tokens < ends[-1]
    # Query-rows prompts lack their last tokens, one each.
    assert step_tokens + len(whole) < ends[-1]
