"""Models with ALiBi run with FlashAttention 2, the only version that computes it.

Where that matters, on Hopper GPUs, no test runs; on CPU the setting is there and does nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import BloomConfig, FalconConfig, LlamaConfig, MptConfig

from rgpt_batch.engines.vllm import arguments
from tests.engines import scheduling
from tests.engines.configs import float32_config, open_engine
from tests.engines.pairs import PAIRS

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")

SMALL = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 1024}
BLOOM = BloomConfig(**SMALL, architectures=["BloomForCausalLM"])
FALCON = FalconConfig(**SMALL, alibi=True, architectures=["FalconForCausalLM"])
ROTARY_FALCON = FalconConfig(**SMALL, alibi=False, architectures=["FalconForCausalLM"])
LLAMA = LlamaConfig(**SMALL, architectures=["LlamaForCausalLM"])


def with_attention(folder: Path, hf_config: Any, **args: Any) -> dict[str, Any]:
    hf_config.save_pretrained(folder)
    args = {"model": str(folder), "dtype": "float32", "skip_tokenizer_init": True, **args}
    return arguments.with_attention_for_alibi(args)


@pytest.mark.parametrize(
    ("hf_config", "version"),
    [
        pytest.param(BLOOM, 2, id="bloom"),
        pytest.param(FALCON, 2, id="falcon"),
        pytest.param(ROTARY_FALCON, None, id="falcon without alibi"),
        pytest.param(LLAMA, None, id="llama"),
    ],
)
def test_vllm_runs_models_with_alibi_with_flash_attention_2(
    hf_config: Any, version: int | None, tmp_path: Path
) -> None:
    from vllm import EngineArgs

    config = EngineArgs(**with_attention(tmp_path, hf_config)).create_engine_config()
    assert config.attention_config.flash_attn_version == version


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"flash_attn_version": 3}, {"flash_attn_version": 3}),
        ({"flash_attn_version": None}, {"flash_attn_version": None}),
        ({"backend": "TRITON_ATTN"}, {"backend": "TRITON_ATTN", "flash_attn_version": 2}),
        (None, {"flash_attn_version": 2}),
    ],
)
def test_what_the_user_has_set_stays(
    given: dict[str, Any] | None, expected: dict[str, Any], tmp_path: Path
) -> None:
    args = with_attention(tmp_path, BLOOM, attention_config=given)
    assert args["attention_config"] == expected


def test_a_setting_that_overrides_config_json_counts(tmp_path: Path) -> None:
    args = with_attention(tmp_path, ROTARY_FALCON, hf_overrides={"alibi": True})
    assert args["attention_config"] == {"flash_attn_version": 2}


@pytest.mark.parametrize("alibi", [True, False])
def test_mpt_has_its_switch_in_a_part_of_its_own(alibi: bool) -> None:
    # vLLM 0.28 and later have no MPT.
    config = MptConfig(attn_config={"alibi": alibi})
    assert arguments.computes_alibi(config) is alibi
    config.attn_config = {"alibi": alibi}
    assert arguments.computes_alibi(config) is alibi


# Each starts an engine: 15 s on two cores.
@pytest.mark.parametrize(
    ("method", "scheduler"),
    [("query-rows", scheduling.CAPPED), ("prompt-logprobs", scheduling.UNCAPPED)],
)
def test_engines_give_bloom_flash_attention_2(
    method: str, scheduler: str, tiny_bloom: Path
) -> None:
    scheduling.reset()
    config = float32_config(tiny_bloom, method, vllm_args={"scheduler_cls": scheduler})
    with open_engine(config) as engine:
        assert len(engine.score(PAIRS[:1])) == 1
    assert scheduling.vllm_config().attention_config.flash_attn_version == 2
