"""engine.method=auto takes the fastest engine that works and says why it passed over others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.engines import create_engine
from rgpt_batch.engines.auto import first_that_works
from rgpt_batch.engines.fake import FakeEngine
from rgpt_batch.errors import EngineDead, EngineError, EngineStartError
from tests.engines.configs import float32_config, open_engine
from tests.engines.pairs import PAIRS, TOLERANCE


@pytest.mark.vllm
def test_auto_takes_query_rows(tiny_llama: Path) -> None:
    with open_engine(float32_config(tiny_llama, "auto")) as engine:
        assert engine.method == "query-rows"
        assert engine.passed_over == ()
        assert [len(a.values) for a in engine.score(PAIRS)] == [p.num_query_tokens for p in PAIRS]


@pytest.mark.vllm
def test_auto_falls_back_to_prompt_logprobs_with_the_same_scores(tiny_llama: Path) -> None:
    with open_engine(float32_config(tiny_llama, "prompt-logprobs")) as engine:
        expected = engine.score(PAIRS)
    # With this setting of the user's, vLLM runs no pooling models; and without
    # Triton there is no model runner V2.
    config = float32_config(tiny_llama, "auto", vllm_args={"runner": "generate"})
    with open_engine(config) as engine:
        assert engine.method == "prompt-logprobs"
        assert len(engine.passed_over) == 2
        assert "model runner V1" in engine.passed_over[1]
        for found, wanted in zip(engine.score(PAIRS), expected, strict=True):
            np.testing.assert_allclose(found.values, wanted.values, rtol=0, atol=TOLERANCE)


@pytest.mark.vllm
def test_token_ids_is_refused_before_the_model_is_loaded(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "llama")
    # Whoever loads it has something else to say.
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EngineStartError, match="model runner V1 here"):
        create_engine(float32_config(folder, "token-ids"))


@pytest.mark.vllm
def test_a_model_that_no_engine_loads_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match=f"(?s)no engine works.*{tmp_path}/absent"):
        create_engine(float32_config(tmp_path / "absent", "auto"))


def failing(error: EngineError) -> FakeEngine:
    raise error


def test_reasons_are_one_line_each_in_the_order_of_speed() -> None:
    engine = first_that_works(
        [
            lambda: failing(EngineStartError("first failed\nSet VLLM_LOGGING_LEVEL=INFO")),
            lambda: failing(EngineDead("second died")),
            FakeEngine,
        ]
    )
    assert engine.passed_over == ("first failed", "second died")


def test_where_nothing_works_every_cause_is_told_once() -> None:
    starts = [lambda cause=cause: failing(EngineStartError(cause)) for cause in ("a", "b", "b")]
    with pytest.raises(EngineStartError, match=r"(?s)here:\n  a\n  b$"):
        first_that_works(starts)
