"""Which folders have to be converted before anything can load them. Reads names and JSON alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from rgpt_batch.conversion.settings import Settings

Kind = Literal["baichuan", "qwen", "bert", "t5", "adapter", "other"]

ADAPTER_CONFIG = "adapter_config.json"
_BERT_CONFIG = "bert_config.json"
BERT_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "type_vocab_size"),
)
# What a tokenizer.json is made of.
TOKENIZER_SOURCES = ("tokenizer.model", "spiece.model", "qwen.tiktoken")
_NEEDS: dict[Kind, str] = {
    "baichuan": "holds Baichuan's layout, which no engine loads",
    "qwen": "holds the first Qwen's layout, which no engine loads",
    "bert": "holds a BERT whose config does not say what it is, which no engine loads",
    "adapter": "holds an adapter, which has to be merged into its base",
}


def needed_conversion(folder: Path) -> str | None:
    """Say why a folder cannot be used as it is, and the command that converts it.

    Raises:
        ConfigError: A file of settings cannot be read.
    """
    return needed_for_model(folder) or needed_for_tokenizer(folder)


def needed_for_model(folder: Path) -> str | None:
    """Do the same for the weights and their config."""
    kind = model_kind(folder)
    return _sentence(folder, _NEEDS[kind]) if kind in _NEEDS else None


def needed_for_tokenizer(folder: Path) -> str | None:
    """Do the same for the tokenizer."""
    if (folder / "tokenizer.json").is_file():
        return None
    for name in TOKENIZER_SOURCES:
        if (folder / name).is_file():
            return _sentence(folder, f"holds {name}, but no tokenizer.json with its exact tokens")
    return None


def conversion_command(folder: Path) -> str:
    """Return the command that converts a folder, or a model of the hub."""
    if not folder.is_dir():
        local = Path(folder.name)
        return f"hf download {folder} --local-dir {local}, then {_command(local)}"
    base = ""
    if model_kind(folder) == "adapter":
        named = str(Settings(folder / ADAPTER_CONFIG).get("base_model_name_or_path", ""))
        if not (Path(named) / "config.json").is_file():
            base = " --base FOLDER_OF_THE_BASE"
    return f"{_command(folder)}{base}"


def _command(folder: Path) -> str:
    target = folder.with_name(f"{folder.name}-converted")
    return f"rgpt-batch convert {shlex.quote(str(folder))} {shlex.quote(str(target))}"


def model_kind(folder: Path) -> Kind:
    """Say which conversion a folder's weights and config need; "other" is none, or of format alone.

    Raises:
        ConfigError: The config cannot be read.
    """
    if (folder / ADAPTER_CONFIG).is_file() and not _has_weights(folder):
        return "adapter"
    file = config_file(folder)
    if not file.is_file():
        return "other"
    config = Settings(file)
    match config.get("model_type"):
        case "baichuan":
            return "baichuan"
        case "qwen":
            return "qwen"
        case "t5":
            return "t5"
        case None if all(name in config for name in BERT_SIZES):
            return "bert"
    return "other"


def config_file(folder: Path) -> Path:
    """Return where a model's config is, or should be. Google's BERTs call it bert_config.json."""
    bert = folder / _BERT_CONFIG
    config = folder / "config.json"
    return bert if bert.is_file() and not config.is_file() else config


def _has_weights(folder: Path) -> bool:
    patterns = ("model*.safetensors", "pytorch_model*.bin")
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _sentence(folder: Path, need: str) -> str:
    return f"{folder}: {need}. Convert it once: {conversion_command(folder)}"
