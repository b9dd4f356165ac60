"""Whether vLLM has kernels for a checkpoint's quantised weights on this processor.

vLLM chooses kernels by the layout of the weights, and does not look whether its build for this
processor has them. Without this check, weights would be loaded, and the first step would fail.
"""

from __future__ import annotations

from typing import Any

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.models import hf_config
from rgpt_batch.errors import EngineStartError

# In vLLM's builds for x86 this kernel needs AVX-512. (0.32)
_KERNEL_FOR_4_BIT = "cpu_gemm_wna16"


def check_kernels(config: JobConfig) -> None:
    """Refuse 4-bit weights on a CPU for which vLLM has no kernel for them.

    Raises:
        EngineStartError: It has none.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    settings = getattr(hf_config(config), "quantization_config", None) or {}
    if not has_4_bits(settings) or current_platform.is_zen_cpu() or has_kernel_for_4_bits():
        return
    raise EngineStartError(
        f"model '{config.model.name}' has 4-bit weights ({settings['quant_method']}), and vLLM has "
        "no kernel for them on this processor; on x86 it needs AVX-512. Take a GPU, or a "
        "checkpoint that is not quantised or has 8-bit integers (compressed-tensors)."
    )


def has_4_bits(settings: dict[str, Any]) -> bool:
    """Whether config.json's quantization_config says that weights are numbers of four bits."""
    if settings.get("quant_method") == "compressed-tensors":
        groups = settings.get("config_groups", {}).values()
        return any((group.get("weights") or {}).get("num_bits") == 4 for group in groups)
    return settings.get("quant_method") in ("awq", "gptq")


def has_kernel_for_4_bits() -> bool:
    """Whether this build of vLLM multiplies with 4-bit weights on CPUs."""
    import torch
    import vllm._custom_ops  # noqa: F401 (loads the kernels)

    return hasattr(torch.ops._C, _KERNEL_FOR_4_BIT)
