"""RankLLaMA: a LoRA adapter with a score head, merged into its base.

    merged = W + lora_alpha / r · B · A        computed in float32, then cast to W's dtype

The base's lm_head goes, the adapter's score.weight comes.

Source: LoRA (arXiv 2106.09685), RankLLaMA (arXiv 2310.08319) and its published adapter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rgpt_batch.conversion.layout import Layout
from rgpt_batch.conversion.llama import decoder_shapes
from rgpt_batch.conversion.needed import ADAPTER_CONFIG
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.conversion.weights import read_tensors
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_SCORE = "score.weight"
_MATRIX = re.compile(r"model\.layers\.\d+\.(self_attn|mlp)\.\w+\.weight")
# Each would change what the adapter computes.
_UNSUPPORTED = (
    *("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern"),
    *("layers_to_transform", "layer_replication", "megatron_config", "use_qalora"),
)


def base_folder(adapter: Path, base: Path | None) -> Path:
    """Return the folder of the adapter's base: the one that was given, or the one that it names.

    Raises:
        ConfigError: Neither is a folder.
    """
    named = Settings(adapter / ADAPTER_CONFIG).get("base_model_name_or_path", "")
    folder = base or Path(str(named))
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{adapter}: an adapter for '{named}'. Give the folder of that model with --base."
        )
    return folder


def adapter_file(adapter: Path) -> Path:
    """Return the file of the adapter's tensors.

    Raises:
        ConfigError: There is none.
    """
    for name in _ADAPTER_FILES:
        if (adapter / name).is_file():
            return adapter / name
    raise ConfigError(f"{adapter}: holds none of {', '.join(_ADAPTER_FILES)}.")


def rankllama_layout(adapter: Path, base: Settings) -> Layout:
    """Describe the merge. The adapter's tensors are read now and stay in memory.

    Raises:
        ConfigError: Adapter or base is of another kind, damaged, or they do not fit together.
    """
    config = Settings(adapter / ADAPTER_CONFIG)
    config.require("peft_type", "LORA")
    config.require("task_type", "SEQ_CLS")
    config.require("bias", "none")
    config.require("modules_to_save", None, ["score"])
    for name in _UNSUPPORTED:
        config.require(name, None, False, {}, [])
    base.require("model_type", "llama")
    base.require("quantization_config", None)
    base.require("tie_word_embeddings", False)
    base.require("attention_bias", False)
    base.require("mlp_bias", False)
    hidden, num_heads = base.integer("hidden_size"), base.integer("num_attention_heads")
    num_key_value_heads = base.get("num_key_value_heads", num_heads)
    expected = decoder_shapes(
        vocab_size=base.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=base.integer("intermediate_size"),
        num_layers=base.integer("num_hidden_layers"),
        num_key_value_rows=hidden // num_heads * num_key_value_heads,
    )
    rank, alpha = config.integer("r"), config.number("lora_alpha")
    factors, score = _read_adapter(adapter, config, expected)

    def convert(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
        if name in factors:
            down, up = factors[name]
            delta = up.float() @ down.float()
            yield name, weight.float().add_(delta, alpha=alpha / rank).to(weight.dtype)
        elif name != "lm_head.weight":
            yield name, weight

    return Layout(
        name="a Llama that a RankLLaMA adapter is merged into",
        expected=expected,
        ignored=re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
        convert=convert,
        added={_SCORE: score},
        config={
            **base.values,
            "architectures": ["LlamaForSequenceClassification"],
            "id2label": {"0": "LABEL_0"},
            "label2id": {"LABEL_0": 0},
            "pad_token_id": base.get("pad_token_id", 0),
        },
        rules=(
            f"LoRA merged in float32, then cast back: {len(factors)} matrices, rank {rank}, "
            f"alpha {alpha:g}",
            "lm_head left out, the adapter's score.weight added",
        ),
    )


def _read_adapter(
    adapter: Path, config: Settings, base: dict[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
    """Return (A, B) by the name of the weight that they change, and the score head."""
    file, rank = adapter_file(adapter), config.integer("r")
    modules = config.get("target_modules")
    if not isinstance(modules, list) or not modules:
        raise ConfigError(f"{config.file}: 'target_modules' is {modules!r}, expected names.")
    # The adapter is small, some 2 % of its base, so its tensors are copied out of the file's map.
    tensors = {name: tensor.clone() for name, tensor in read_tensors(file)}
    targets = [name for name in base if _MATRIX.fullmatch(name) and name.split(".")[-2] in modules]
    shapes: dict[str, tuple[int, ...]] = {f"{_PREFIX}{_SCORE}": (1, base["model.norm.weight"][0])}
    for name in targets:
        rows, columns = base[name]
        shapes[_factor(name, "A")] = (rank, columns)
        shapes[_factor(name, "B")] = (rows, rank)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if shapes.get(name) != found.get(name):
            raise ConfigError(
                f"{file}: tensor '{name}' has shape {found.get(name, 'none, it is missing')}; "
                f"adapter and base say {shapes.get(name, 'that there is none')}. They do not "
                "belong together, or it is not RankLLaMA's kind of adapter."
            )
    factors = {name: (tensors[_factor(name, "A")], tensors[_factor(name, "B")]) for name in targets}
    return factors, tensors[f"{_PREFIX}{_SCORE}"]


def _factor(name: str, factor: str) -> str:
    return f"{_PREFIX}{name.removesuffix('.weight')}.lora_{factor}.weight"
