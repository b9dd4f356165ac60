"""What is converted: the folders that it comes from, and which layout and tokenizer it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rgpt_batch.conversion.baichuan import baichuan_layout
from rgpt_batch.conversion.bert import bert_layout
from rgpt_batch.conversion.layout import Layout, check_tensors
from rgpt_batch.conversion.needed import (
    Kind,
    config_file,
    model_kind,
    needed_conversion,
    needed_for_tokenizer,
)
from rgpt_batch.conversion.qwen import qwen_layout
from rgpt_batch.conversion.rankllama import base_folder, rankllama_layout
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.conversion.t5 import t5_layout
from rgpt_batch.conversion.t5_tokenizer import from_spiece
from rgpt_batch.conversion.tokenizers import (
    SPIECE,
    TIKTOKEN,
    TOKENIZER_FILES,
    NewTokenizer,
    bert_tokenizer,
    from_sentencepiece,
    from_tiktoken,
)
from rgpt_batch.conversion.weights import WeightFiles, find_weights, scan
from rgpt_batch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Source:
    """A model that can be converted.

    Attributes:
        folder: What was asked for.
        base: Where the weights are; another folder for adapters only.
        tokenizer_folder: Where the tokenizer is.
        tokenizer: What is new about it; None leaves its files as they are.
    """

    folder: Path
    base: Path
    tokenizer_folder: Path
    weights: WeightFiles
    layout: Layout
    tokenizer: NewTokenizer | None


def open_source(folder: Path, base: Path | None) -> Source:
    """Find out what a folder holds, and check that all of it can be converted.

    Raises:
        ConfigError: It needs no conversion, or cannot be converted.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder. A model of the hub has to be downloaded first: "
            "hf download NAME --local-dir FOLDER"
        )
    kind = model_kind(folder)
    if base is not None and kind != "adapter":
        raise ConfigError(f"{folder}: is no adapter, so it has no base. Leave out --base.")
    model = base_folder(folder, base) if kind == "adapter" else folder
    weights = find_weights(model)
    if weights is None:
        raise ConfigError(f"{model}: holds neither model.safetensors nor pytorch_model.bin.")
    if not weights.are_pickled and needed_conversion(folder) is None:
        raise ConfigError(f"{folder}: needs no conversion. Use it as it is.")
    config, found = Settings(config_file(model)), scan(weights)
    match kind:
        case "baichuan":
            layout = baichuan_layout(config)
        case "qwen":
            layout = qwen_layout(config)
        case "bert":
            layout = bert_layout(config, found)
        case "t5":
            layout = t5_layout(config, found)
        case "adapter":
            layout = rankllama_layout(folder, config)
        case "other":
            layout = _UNCHANGED
    check_tensors(model, layout, found)
    tokenizer_folder = folder if _has_tokenizer(folder) else model
    tokenizer = _new_tokenizer(kind, tokenizer_folder)
    num_rows = (layout.config or config.values).get("vocab_size")
    if tokenizer is not None and isinstance(num_rows, int) and tokenizer.num_ids > num_rows:
        raise ConfigError(
            f"{tokenizer_folder}: its tokenizer has {tokenizer.num_ids:,} tokens, but the model "
            f"only {num_rows:,}. They do not belong together."
        )
    return Source(folder, model, tokenizer_folder, weights, layout, tokenizer)


_UNCHANGED = Layout(
    name="a model in a layout that engines load",
    expected=None,
    convert=lambda name, tensor: [(name, tensor)],
    config=None,
    rules=("tensors copied to safetensors, with names and values as they were",),
    keeps_code=True,
)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _new_tokenizer(kind: Kind, folder: Path) -> NewTokenizer | None:
    if kind == "bert":
        return bert_tokenizer(folder)
    if kind == "baichuan":
        return from_sentencepiece(folder)
    if kind == "qwen":
        return from_tiktoken(folder)
    if not needed_for_tokenizer(folder):
        return None
    if (folder / TIKTOKEN).is_file():
        return from_tiktoken(folder)
    return from_spiece(folder) if (folder / SPIECE).is_file() else from_sentencepiece(folder)
