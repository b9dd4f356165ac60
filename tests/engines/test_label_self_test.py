"""The self-test of engines that judge lets right ones pass, and catches those that mix pairs up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.fake import FakeEngine
from rgpt_batch.engines.label_self_test import check_types, label_self_test
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import LabelLogits, LabelPrompt
from tests.conversion.checkpoints import BERT
from tests.conversion.references import bert_logits
from tests.engines.judging import judging_config
from tests.rerankers import Reranker

SCORE = {"kind": "classification", "relevant": 1, "not_relevant": 0}
CONFIG = judging_config(Path("none"), "fake", SCORE)
WITH_TYPES = judging_config(Path("none"), "fake", SCORE, types=True)
# Some prompts of up to 512 tokens fit.
STEP_TOKENS = 2048


class Altered(FakeEngine):
    """An engine whose answers go through alter(), which sees the prompts of one call."""

    def __init__(self) -> None:
        super().__init__(num_labels=2)
        self.num_calls = 0

    def score(self, pairs: Sequence[LabelPrompt]) -> list[LabelLogits]:
        self.num_calls += 1
        answers = [answer.values for answer in super().score(pairs)]
        return [LabelLogits(values=values) for values in self.alter(pairs, answers)]

    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return answers


class ExchangesPrompts(Altered):
    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [*answers[1:], answers[0]]


class ReadsAStaleCache(Altered):
    """Gives wrong logits once prompts were seen before."""

    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [values + (self.num_calls > 1) for values in answers]


class DependsOnTheBatch(Altered):
    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [values + np.float32(0.1 * len(pairs)) for values in answers]


class AnswersTheSame(Altered):
    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [np.zeros_like(values) for values in answers]


class AnswersNaN(Altered):
    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [*answers[:-1], answers[-1] * np.nan]


class AnswersOneLabel(Altered):
    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [values[:1] for values in answers]


class DropsAPrompt(Altered):
    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return answers[1:]


class KnowsTypes(Altered):
    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        return [v + (p.second_segment or 0) for p, v in zip(pairs, answers, strict=True)]


@pytest.mark.parametrize("step_tokens", [96, 1024, 2048, 8192])
@pytest.mark.parametrize("config", [CONFIG, WITH_TYPES])
def test_an_engine_whose_logits_are_of_the_prompt_alone_passes(
    config: JobConfig, step_tokens: int
) -> None:
    label_self_test(Altered(), config, step_tokens)


@pytest.mark.parametrize("max_length", [1, 2, 7])
def test_the_shortest_limits_on_length_pass(max_length: int) -> None:
    config = CONFIG.with_options({"protocol.max_length": max_length})
    label_self_test(Altered(), config, 96)


@pytest.mark.parametrize(
    ("engine", "complaint"),
    [
        (ExchangesPrompts, "differ by .* together and alone"),
        (ReadsAStaleCache, "differ by .* together and alone"),
        (DependsOnTheBatch, "differ by .* together and alone"),
        (AnswersTheSame, "the same logits"),
        (AnswersNaN, r"logits from nan.*try model\.dtype"),
        (AnswersOneLabel, r"shapes \[\(1,\)\]"),
        (DropsAPrompt, "answers of shapes"),
    ],
)
def test_an_engine_that_mixes_pairs_up_is_refused(engine: type[Altered], complaint: str) -> None:
    with pytest.raises(EngineStartError, match=complaint):
        label_self_test(engine(), CONFIG, STEP_TOKENS)


def test_prompts_cross_the_end_of_a_step_and_differ_in_length() -> None:
    seen: list[Sequence[LabelPrompt]] = []

    class Records(Altered):
        def alter(
            self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]
        ) -> list[np.ndarray]:
            seen.append(pairs)
            return answers

    label_self_test(Records(), WITH_TYPES, STEP_TOKENS)
    lengths = [len(prompt.token_ids) for prompt in seen[0]]
    assert sum(lengths) > STEP_TOKENS
    assert len(set(lengths)) > 2
    assert max(lengths) == WITH_TYPES.protocol.max_tokens
    assert all(prompt.second_segment for prompt in seen[0])


def test_an_engine_that_loses_token_types_is_refused() -> None:
    check_types(KnowsTypes(), WITH_TYPES)
    with pytest.raises(EngineStartError, match=r"ignores token types.*leave out segment: 1"):
        check_types(Altered(), WITH_TYPES)


def test_types_are_not_asked_for_where_the_prompt_has_one_segment() -> None:
    check_types(Altered(), CONFIG)


def test_a_prompt_keeps_its_tokens_when_its_types_are_left_out() -> None:
    # The control of the test above: the two calls differ in nothing but the types.
    seen: list[Sequence[LabelPrompt]] = []

    class Records(KnowsTypes):
        def alter(
            self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]
        ) -> list[np.ndarray]:
            seen.append(pairs)
            return super().alter(pairs, answers)

    check_types(Records(), WITH_TYPES)
    for with_types, without in zip(*seen, strict=True):
        expected = replace(with_types, second_segment=None)
        assert without.token_ids.tolist() == expected.token_ids.tolist()
        assert without.second_segment is None and with_types.second_segment is not None


Tensors = dict[str, torch.Tensor]


class Bert(Altered):
    """A MonoBERT that answers a prompt by itself with other tensors than several together."""

    def __init__(self, together: Tensors, alone: Tensors) -> None:
        super().__init__()
        self.tensors = {True: alone, False: together}

    def alter(self, pairs: Sequence[LabelPrompt], answers: list[np.ndarray]) -> list[np.ndarray]:
        tensors = self.tensors[len(pairs) == 1]
        return [
            bert_logits(BERT, tensors, p.token_ids.tolist(), len(p.token_ids)).float().numpy()
            for p in pairs
        ]


def with_swapped_labels(tensors: Tensors) -> Tensors:
    return tensors | {name: tensors[name].flip(0) for name in tensors if "classifier" in name}


def with_a_shuffled_norm(tensors: Tensors) -> Tensors:
    name = "bert.encoder.layer.0.output.LayerNorm.weight"
    shuffled = torch.randperm(len(tensors[name]), generator=torch.Generator().manual_seed(0))
    return tensors | {name: tensors[name][shuffled]}


def with_small_logits(tensors: Tensors) -> Tensors:
    """Logits with a standard deviation of 0.02 around 0.1."""
    scaled = {name: tensors[name] / 100 for name in tensors if "classifier" in name}
    bias = torch.full_like(tensors["classifier.bias"], 0.1)
    return tensors | scaled | {"classifier.bias": bias}


def bert_config(dtype: str) -> JobConfig:
    # No more: bfloat16 is emulated.
    return CONFIG.with_options({"model.dtype": dtype, "protocol.max_length": 64})


@pytest.mark.parametrize("size", [dict, with_small_logits], ids=["large", "small"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_that_rounds_to_its_dtype_passes(
    dtype: str, size: Callable[[Tensors], Tensors], tiny_monobert: Reranker
) -> None:
    tensors = size(tiny_monobert.tensors)
    rounded = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    label_self_test(Bert(tensors, rounded), bert_config(dtype), 128)


@pytest.mark.parametrize("wrong", [with_swapped_labels, with_a_shuffled_norm])
@pytest.mark.parametrize("size", [dict, with_small_logits], ids=["large", "small"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "auto"])
def test_a_model_that_is_wrong_for_some_batches_is_refused(
    dtype: str,
    size: Callable[[Tensors], Tensors],
    wrong: Callable[[Tensors], Tensors],
    tiny_monobert: Reranker,
) -> None:
    tensors = size(tiny_monobert.tensors)
    with pytest.raises(EngineStartError, match=r"differ by .* together and alone"):
        label_self_test(Bert(tensors, wrong(tensors)), bert_config(dtype), 128)
