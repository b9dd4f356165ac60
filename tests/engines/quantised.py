"""Checkpoints with weights of eight bits, and what their arithmetic gives in float32."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from rgpt_batch.records import TokenizedPair
from tests.models import set_config

_LAYERS = "_proj.weight"
# The largest numbers, and the format's name in compressed-tensors.
_KINDS = {"int": (127.0, "int-quantized"), "float": (448.0, "float-quantized")}


def with_8_bit_layers(model: Path, folder: Path, kind: str = "int") -> Path:
    """Write the model with 8-bit weights, 8-bit activations per token and the head as it was.

    Args:
        model: A Llama's folder, left as it is.
        folder: Where the other one goes.
        kind: "int", or "float" for fp8 (e4m3).
    """
    shutil.copytree(model, folder)
    largest, file_format = _KINDS[kind]
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith(_LAYERS)]:
        scale = tensors[name].abs().amax(dim=1, keepdim=True) / largest
        tensors[name] = _rounded(tensors[name] / scale, kind)
        tensors[f"{name}_scale"] = scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    numbers = {"num_bits": 8, "type": kind, "symmetric": True}
    set_config(
        folder,
        quantization_config={
            "quant_method": "compressed-tensors",
            "format": file_format,
            "quantization_status": "compressed",
            "ignore": ["lm_head"],
            "config_groups": {
                "group_0": {
                    "targets": ["Linear"],
                    "weights": {**numbers, "strategy": "channel", "dynamic": False},
                    "input_activations": {**numbers, "strategy": "token", "dynamic": True},
                }
            },
        },
    )
    return folder


def _rounded(values: torch.Tensor, kind: str) -> torch.Tensor:
    return values.round().char() if kind == "int" else values.to(torch.float8_e4m3fn)


@torch.no_grad()
def logprobs_of_rounded(
    model: Path, pairs: Sequence[TokenizedPair], kind: str
) -> list[npt.NDArray[np.float64]]:
    """Compute in float32 with transformers, but round weights and inputs of layers as above.

    Returns:
        For each pair the logprobs of its query's tokens, nats.
    """
    from transformers import AutoModelForCausalLM

    largest, _ = _KINDS[kind]

    def round_trip(values: torch.Tensor) -> torch.Tensor:
        scale = (values.abs().amax(dim=-1, keepdim=True) / largest).clamp(min=1e-12)
        return _rounded(values / scale, kind).float() * scale

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    for name, layer in loaded.named_modules():
        if f"{name}.weight".endswith(_LAYERS):
            layer.weight.copy_(round_trip(layer.weight))
            layer.register_forward_pre_hook(lambda _, args: (round_trip(args[0]),))
    found = []
    for pair in pairs:
        ids = torch.from_numpy(np.asarray(pair.token_ids, dtype=np.int64))
        logprobs = torch.log_softmax(loaded(ids[None]).logits[0].double(), dim=-1)
        rows: Any = logprobs[pair.query_start - 1 : -1]
        targets = ids[pair.query_start :, None]
        found.append(rows.gather(1, targets).squeeze(1).numpy())
    return found
