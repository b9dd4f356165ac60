"""How fast a GPU may score, by its data sheet: a wide interval, since one GPU was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgpt_batch.bench.shapes import ModelShape
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.model_files import on_this_machine
from rgpt_batch.storage.hub import hub_errors

if TYPE_CHECKING:
    from rgpt_batch.config.options import ModelConfig

# Share of a GPU's dense peak that scoring may reach. An H200 was measured (benchmarks/results,
# 2026-11-27): bloom-7b reached 67 % of its data sheet's, bloom-560m 36 %, and about 16 % with 16
# queries per document; a whole job with bloom-560m 25 %.
_EFFICIENCY = (0.15, 0.7)
# What one worker's Python was seen to keep up with: bloom-560m, 16 queries per document.
_MOST_PAIRS_PER_SECOND = 16_000.0
# Models whose feed-forward layers have a gate, and so a third matrix.
_GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "baichuan")


@dataclass(frozen=True, slots=True)
class Gpu:
    """What NVIDIA's data sheet says.

    Attributes:
        bf16_tflops: Dense, tensor cores.
        memory_gb: 10^9 bytes.
    """

    bf16_tflops: float
    memory_gb: int


# Sources: the data sheets of each, without sparsity.
GPUS = {
    "a10": Gpu(125, 24),
    "a100-40gb": Gpu(312, 40),
    "a100": Gpu(312, 80),
    "l4": Gpu(121, 24),
    "l40s": Gpu(362, 48),
    "h100-pcie": Gpu(756, 80),
    "h100": Gpu(989, 80),
    "h200": Gpu(989, 141),
    "b200": Gpu(2250, 180),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEstimate:
    """What one worker may do.

    Attributes:
        num_gpus: That the worker has.
        flops_per_pair: After sharing.
        weights_gb: In the dtype of 2 bytes.
        slow: Pairs per second at the low end of the interval.
        fast: Pairs per second at the high end.
    """

    gpu: str
    num_gpus: float
    flops_per_pair: float
    weights_gb: float
    slow: float
    fast: float

    @property
    def fits(self) -> bool:
        """Whether the weights leave a tenth of the memory free."""
        return self.weights_gb <= 0.9 * GPUS[self.gpu].memory_gb * max(1.0, self.num_gpus)

    @property
    def basis(self) -> str:
        """Where the interval comes from, for people."""
        low, high = _EFFICIENCY
        return (
            f"{self.flops_per_pair / 1e9:,.1f} GFLOP per pair, {low:.0%} to {high:.0%} of "
            f"{GPUS[self.gpu].bf16_tflops * self.num_gpus:,.0f} TFLOP/s (bfloat16, NVIDIA's data "
            "sheet), as seen on an H200. Score a sample on yours, then plan --like its output"
        )


def estimate_on_gpu(
    model: ModelConfig,
    gpu: str,
    *,
    num_gpus: float,
    num_tokens: float,
    num_query_tokens: float,
    queries_per_document: float,
) -> GpuEstimate:
    """Estimate how fast a worker scores.

    Args:
        model: Whose config.json tells the sizes.
        gpu: A name in GPUS.
        num_gpus: That a worker has.
        num_tokens: Of a prompt, on the mean.
        num_query_tokens: Of them the query's.
        queries_per_document: How many pairs of a unit share a document's computation; at least 1.

    Raises:
        ConfigError: config.json is missing, or does not tell the sizes.
    """
    shape = read_shape(model)
    # A shared document is computed once for all of its queries.
    computed = num_query_tokens + (num_tokens - num_query_tokens) / max(1.0, queries_per_document)
    whole = shape.flops_per_score(round(num_tokens), round(num_query_tokens))
    head = whole - shape.flops_per_score(round(num_tokens), 0)
    flops = (whole - head) * computed / max(1.0, num_tokens) + head
    peak = GPUS[gpu].bf16_tflops * 1e12 * num_gpus
    slow, fast = (min(share * peak / flops, _MOST_PAIRS_PER_SECOND) for share in _EFFICIENCY)
    return GpuEstimate(
        gpu=gpu,
        num_gpus=num_gpus,
        flops_per_pair=flops,
        weights_gb=shape.num_bytes / 1e9,
        slow=slow,
        fast=fast,
    )


def read_shape(model: ModelConfig) -> ModelShape:
    """Read a model's sizes from its config.json; errors as estimate_on_gpu."""
    settings = _settings(model)
    kind = str(settings.get("model_type", "")).lower()
    try:
        hidden = _first(settings, "hidden_size", "n_embed", "d_model")
        heads = _first(settings, "num_attention_heads", "n_head", "num_heads")
        return ModelShape(
            name=model.name,
            model_type=kind,
            hidden_size=hidden,
            num_layers=_first(settings, "num_hidden_layers", "n_layer", "num_layers"),
            num_heads=heads,
            num_kv_heads=int(settings.get("num_key_value_heads") or heads),
            vocab_size=_first(settings, "vocab_size"),
            ffn_size=int(settings.get("intermediate_size") or settings.get("d_ff") or 4 * hidden),
            num_ffn_matrices=3 if kind in _GATED else 2,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model '{model.name}': its config.json does not tell the model's sizes ({error}). "
            "Leave --gpu out and give --pairs-per-second or --like."
        ) from error


def _first(settings: dict[str, Any], *names: str) -> int:
    for name in names:
        if settings.get(name):
            return int(settings[name])
    raise KeyError(names[0])


def _settings(model: ModelConfig) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    try:
        folder = Path(on_this_machine(model, weights=False).name)
        if folder.is_dir():
            path = folder / "config.json"
        else:
            path = Path(hf_hub_download(model.name, "config.json", revision=model.revision))
        found = json.loads(path.read_text(encoding="utf-8"))
    except hub_errors(ValueError) as error:
        raise ConfigError(
            f"model '{model.name}': its config.json cannot be read, which --gpu needs: {error}"
        ) from error
    return found if isinstance(found, dict) else {}
