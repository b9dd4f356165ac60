"""Quantised weights are refused before they are loaded, where vLLM has no kernel for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.engines import create_engine
from rgpt_batch.engines.vllm.kernels import (
    adds_8_bit_integers,
    has_4_bits,
    has_8_bit_integers,
    has_kernel_for_4_bits,
)
from rgpt_batch.errors import EngineStartError
from tests.engines.configs import float32_config
from tests.engines.judging import judging_config
from tests.models import set_config

INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
PACKED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}},
}
W8A8 = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": INT8,
            "input_activations": INT8 | {"strategy": "token", "dynamic": True},
        }
    },
}


def without_weights(model: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """A folder whose config names a quantisation. Whoever loads its weights has else to say."""
    shutil.copytree(model, folder)
    set_config(folder, quantization_config=settings)
    (folder / "model.safetensors").write_bytes(b"no weights")
    return folder


def test_weights_of_four_bits_are_known_by_their_config() -> None:
    assert has_4_bits(AWQ) and has_4_bits(GPTQ) and has_4_bits(PACKED)
    groups = {"group_0": {"targets": ["Linear"], "weights": INT8}}
    assert not has_4_bits(PACKED | {"config_groups": groups})
    # Of these vLLM itself says that it has no kernel.
    assert not has_4_bits(GPTQ | {"bits": 8})
    assert not has_4_bits({"quant_method": "fp8"}) and not has_4_bits({})


def test_products_of_integers_are_known_by_their_config() -> None:
    assert has_8_bit_integers(W8A8) and not has_4_bits(W8A8)
    dtype = {"dtype": "int8", "qscheme": "per_channel"}
    quark = {"quant_method": "quark", "global_quant_config": {"input_tensors": dtype}}
    assert has_8_bit_integers(quark)
    for settings in ({}, AWQ, GPTQ, PACKED, {"quant_method": "fp8"}):
        assert not has_8_bit_integers(settings)


@pytest.mark.vllm
@pytest.mark.parametrize("method", ["query-rows", "prompt-logprobs", "pooling"])
def test_integers_are_refused_where_the_processor_adds_them_up_wrongly(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = without_weights(tiny_llama, tmp_path / "quantised", W8A8)
    config = float32_config(folder, method if method != "pooling" else "auto")
    if method == "pooling":
        config = judging_config(folder, method, {"kind": "label-tokens", "relevant": "in"})
    # Where it adds up, the engine goes on to the weights, which are none.
    expected = "HeaderTooSmall|header" if adds_8_bit_integers() else "8-bit integers .*VNNI"
    with pytest.raises(EngineStartError, match=expected):
        create_engine(config)


@pytest.mark.vllm
@pytest.mark.parametrize("settings", [AWQ, GPTQ, PACKED], ids=["awq", "gptq", "packed"])
@pytest.mark.parametrize("method", ["auto", "query-rows", "prompt-logprobs", "pooling"])
def test_four_bits_are_refused_where_the_processor_has_no_kernel(
    settings: dict[str, Any], method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    if has_kernel_for_4_bits():
        pytest.skip("this processor has the kernel")
    folder = without_weights(tiny_llama, tmp_path / "quantised", settings)
    config = float32_config(folder, method if method != "pooling" else "auto")
    if method == "pooling":
        score = {"kind": "label-tokens", "relevant": "in"}
        config = judging_config(folder, method, score)
    with pytest.raises(EngineStartError, match=r"4-bit weights \(.*no kernel.*AVX-512"):
        create_engine(config.with_options({"model.dtype": "float16"}))
