"""Whether vLLM has kernels for a checkpoint's quantised weights on this processor.

vLLM chooses kernels by the layout of the weights, and does not look whether its build for this
processor has them, or what the processor makes of them. Without this check weights would be loaded,
and the first step would fail, or sums of 8-bit integers would be wrong without a word.
"""

from __future__ import annotations

from typing import Any

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.hooks import Hook, missing
from rgpt_batch.engines.vllm.models import hf_config
from rgpt_batch.errors import EngineStartError

# In vLLM's builds for x86 this kernel needs AVX-512. (0.32)
_KERNEL_FOR_4_BIT = "cpu_gemm_wna16"
_OPS = "vllm._custom_ops"
# What multiplies 8-bit integers on CPUs.
INT8_HOOKS = (
    Hook(
        _OPS,
        "create_onednn_scaled_mm",
        keywords=(
            *("weight", "weight_scales", "output_type", "dynamic_quant", "use_azp"),
            "primitive_cache_size",
        ),
    ),
    Hook(_OPS, "onednn_scaled_int8_quant", keywords=("input", "scale", "azp", "symmetric")),
    Hook(
        _OPS,
        "onednn_scaled_mm",
        keywords=(
            *("dnnl_handler", "x", "output", "input_scale", "input_zp", "input_zp_adj", "bias"),
        ),
    ),
)


def check_kernels(config: JobConfig) -> None:
    """Refuse quantised weights on a CPU for which vLLM has no kernel for them, or a wrong one.

    Raises:
        EngineStartError: It has none, or it does not add up.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    settings = getattr(hf_config(config), "quantization_config", None) or {}
    # AMD's newest have kernels of their own.
    if current_platform.is_zen_cpu():
        return
    if has_4_bits(settings) and not has_kernel_for_4_bits():
        raise EngineStartError(
            f"model '{config.model.name}' has 4-bit weights ({settings['quant_method']}), and vLLM "
            "has no kernel for them on this processor; on x86 it needs AVX-512. Take a GPU, or a "
            "checkpoint that is not quantised."
        )
    if has_8_bit_integers(settings) and not adds_8_bit_integers():
        raise EngineStartError(
            f"model '{config.model.name}' computes with 8-bit integers "
            f"({settings['quant_method']}), and on this processor sums of their products overflow "
            "in vLLM; on x86 it needs VNNI. Take a GPU, or a checkpoint that is not quantised."
        )


def has_4_bits(settings: dict[str, Any]) -> bool:
    """Whether config.json's quantization_config says that weights are numbers of four bits."""
    if settings.get("quant_method") == "compressed-tensors":
        groups = settings.get("config_groups", {}).values()
        return any((group.get("weights") or {}).get("num_bits") == 4 for group in groups)
    return settings.get("quant_method") in ("awq", "gptq") and settings.get("bits", 4) == 4


def has_8_bit_integers(settings: dict[str, Any]) -> bool:
    """Whether config.json's quantization_config says that integers are multiplied."""
    if settings.get("quant_method") == "compressed-tensors":
        groups = settings.get("config_groups", {}).values()
        inputs = [group.get("input_activations") or {} for group in groups]
        return any(each.get("type") == "int" and each.get("num_bits") == 8 for each in inputs)
    return settings.get("quant_method") == "quark" and "'int8'" in str(settings)


def adds_8_bit_integers() -> bool:
    """Multiply the largest 8-bit integers as vLLM does, and tell whether the sums are right.

    On x86 without VNNI two products are added in 16 bit, which holds less than that: sums of
    ordinary weights come out wrong where two large ones meet.
    """
    import torch
    from vllm import _custom_ops as ops

    if missing(INT8_HOOKS):
        return False
    ones = torch.ones(4, 64)
    weights, scales = torch.full((64, 64), 127, dtype=torch.int8), torch.full((64, 1), 1 / 127)
    handler = ops.create_onednn_scaled_mm(
        weight=weights.t(),
        weight_scales=scales,
        output_type=torch.float32,
        dynamic_quant=True,
        use_azp=False,
        primitive_cache_size=1,
    )
    integers, scale, _ = ops.onednn_scaled_int8_quant(
        input=ones, scale=None, azp=None, symmetric=True
    )
    sums = torch.empty(4, 64)
    ops.onednn_scaled_mm(
        dnnl_handler=handler,
        x=integers,
        output=sums,
        input_scale=scale,
        input_zp=None,
        input_zp_adj=weights.sum(dim=1, dtype=torch.float32)[None] / 127,
        bias=None,
    )
    return bool(torch.allclose(sums, torch.full_like(sums, 64.0), rtol=1e-4))


def has_kernel_for_4_bits() -> bool:
    """Whether this build of vLLM multiplies with 4-bit weights on CPUs."""
    import torch
    import vllm._custom_ops  # noqa: F401 (loads the kernels)

    return hasattr(torch.ops._C, _KERNEL_FOR_4_BIT)
