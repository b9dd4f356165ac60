"""Models that judge pairs give vLLM's pooling engine the logits that their description says.

Nine starts of vLLM: about 90 s on two idle cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from rgpt_batch.engines import AnyEngine, create_engine
from rgpt_batch.engines.references import create_reference
from rgpt_batch.errors import EngineStartError
from tests.engines.configs import open_engine
from tests.engines.judging import (
    CASES,
    TOLERANCE,
    Case,
    judging_config,
    logits,
    make_case,
    make_prompt,
    mixed_prompts,
)
from tests.models import save_tiny_llama
from tests.rerankers import Reranker

pytestmark = pytest.mark.vllm


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    case: Case
    engine: AnyEngine


@pytest.fixture(scope="module", params=CASES)
def started(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_monobert: Reranker,
    tiny_rankllama: Reranker,
) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp(request.param)
    case = make_case(request.param, folder, tiny_monobert, tiny_rankllama)
    with open_engine(case.config("pooling")) as engine:
        yield Started(case=case, engine=engine)


def test_logits_are_those_of_the_float32_reference(started: Started) -> None:
    prompts = mixed_prompts(types=started.case.has_types)
    found = logits(started.engine.score(prompts))
    assert found.dtype == np.float32
    expected = started.case.expected(prompts)
    assert np.abs(found - expected).max() <= TOLERANCE
    # The control: a logit of another prompt would be seen.
    assert expected.std(axis=0).min() > 1000 * TOLERANCE


def test_a_prompt_gets_the_same_logits_alone_in_a_batch_and_repeated(started: Started) -> None:
    prompts = mixed_prompts(types=started.case.has_types)
    # Whatever the prefix cache holds by now, the last prompts come first.
    together = logits(started.engine.score([*prompts[::-1], *prompts]))
    backwards, forwards = together[: len(prompts)][::-1], together[len(prompts) :]
    np.testing.assert_array_equal(backwards, forwards)
    alone = np.concatenate([logits(started.engine.score([prompt])) for prompt in prompts])
    np.testing.assert_allclose(alone, forwards, rtol=0, atol=TOLERANCE)


def test_where_the_second_segment_begins_counts_for_models_with_types_alone(
    started: Started,
) -> None:
    whole, parted = make_prompt(60), make_prompt(60, types=True)
    first, second = logits(started.engine.score([whole, parted]))
    difference = np.abs(first - second).max()
    assert difference > 100 * TOLERANCE if started.case.has_types else difference <= TOLERANCE


def test_the_reference_engine_gives_what_the_published_descriptions_say(
    tiny_monobert: Reranker, tiny_rankllama: Reranker, tmp_path: Path
) -> None:
    for name in ("monobert", "rankllama"):
        case = make_case(name, tmp_path, tiny_monobert, tiny_rankllama)
        prompts = mixed_prompts(types=case.has_types)
        found = logits(create_reference(case.config("transformers")).score(prompts))
        assert np.abs(found - case.expected(prompts)).max() <= TOLERANCE


@pytest.mark.parametrize("method", ["pooling", "transformers"])
def test_a_label_that_the_head_lacks_is_named(method: str, tiny_rankllama: Reranker) -> None:
    score = {"kind": "classification", "relevant": 1, "not_relevant": 0}
    with pytest.raises(EngineStartError, match=r"has 1 labels, counted from 0, and no label 1\."):
        create_engine(judging_config(tiny_rankllama.folder, method, score))


@pytest.mark.parametrize("method", ["auto", "transformers"])
def test_a_model_without_a_head_does_not_start(method: str, tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path)
    with pytest.raises(EngineStartError, match=r"no classification head|score\.weight"):
        create_engine(judging_config(folder, method, {"kind": "classification", "relevant": 0}))


@pytest.mark.parametrize("method", ["pooling", "transformers"])
def test_a_head_whose_tensors_are_missing_does_not_start(
    method: str, tiny_monobert: Reranker, tmp_path: Path
) -> None:
    for file in tiny_monobert.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (file,) = tmp_path.glob("*.safetensors")
    tensors = load_file(file)
    del tensors["classifier.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    score = {"kind": "classification", "relevant": 1}
    with pytest.raises(EngineStartError, match=r"classifier\.weight"):
        create_engine(judging_config(tmp_path, method, score))
