"""The conversion of a folder.

source opened and checked → small files → tensors streamed → record → config → published in one step
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rgpt_batch import __version__
from rgpt_batch.conversion.needed import ADAPTER_CONFIG, config_file
from rgpt_batch.conversion.source import Source, open_source
from rgpt_batch.conversion.target import ShardWriter, file_sha256, new_folder, sync, write_json
from rgpt_batch.conversion.tokenizers import TOKENIZER_FILES
from rgpt_batch.conversion.weights import read_tensors
from rgpt_batch.errors import ConfigError

RECORD = "conversion.json"
MAX_SHARD_BYTES = 2**30

_CONFIG = "config.json"
# Small files that belong to a model. Of others (TensorFlow's weights, optimizers, images) none is
# taken over.
_COPIED_SUFFIXES = {".json", ".txt", ".model", ".jinja", ".md", ".py"}
_COPIED_NAMES = {"LICENSE", "NOTICE"}
# An adapter's config beside merged weights would have it merged again.
_NOT_COPIED = {_CONFIG, "bert_config.json", ADAPTER_CONFIG, RECORD}
_TOOLS = ("torch", "safetensors", "tokenizers", "transformers", "sentencepiece")


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done."""

    rules: tuple[str, ...]
    num_tensors: int
    num_bytes: int


def convert(
    folder: Path,
    target: Path,
    *,
    base: Path | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    report: Callable[[str], None] = lambda message: None,
) -> Conversion:
    """Convert a model's folder to one that all engines load.

    Memory: one shard of the target, or twice the largest tensor where that is more. Pickled files
    are mapped besides, which the system takes back at need; those in the format of torch before 1.6
    are read whole, one at a time.

    Args:
        folder: What to read; nothing in it is changed, and no code in it is run.
        target: The folder to make. It appears when all of it is written.
        base: The folder of an adapter's base, if it is not where the adapter says.
        max_shard_bytes: Size of the target's files of weights, unless one tensor is larger.
        report: Is told what happens.

    Raises:
        ConfigError: The folder needs no conversion, or cannot be converted; or the target exists.
    """
    if target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{target}: lies in {folder}, which is only read. Name another folder.")
    if target.exists() or target.is_symlink():
        raise ConfigError(f"{target}: exists already. Name a folder that does not.")
    source = open_source(folder, base)
    rules = source.layout.rules + ((source.tokenizer.rule,) if source.tokenizer else ())
    with new_folder(target) as staging:
        for file in _copied_files(source):
            shutil.copyfile(file, staging / file.name)
        if source.tokenizer is not None:
            source.tokenizer.write(staging)
        writer = _write_weights(source, staging, max_shard_bytes, report)
        report("computing hashes")
        unfinished = _write_config(source, staging, writer.main_dtype)
        _write_record(source, staging, rules)
        # The config comes last: without it nothing loads the folder.
        unfinished.rename(staging / _CONFIG)
        for file in staging.iterdir():
            sync(file)
    return Conversion(rules, writer.num_tensors, writer.num_bytes)


def _copied_files(source: Source) -> Iterator[Path]:
    replaced = source.tokenizer.replaced if source.tokenizer else frozenset()
    folders = dict.fromkeys((source.tokenizer_folder, source.folder))
    for folder in folders:
        for file in _small_files(folder):
            if folder != source.folder and file.name not in TOKENIZER_FILES:
                continue
            is_left_out = file.name in replaced or file.name in _NOT_COPIED
            is_code = file.suffix == ".py" and not source.layout.keeps_code
            if not is_left_out and not is_code and not file.name.endswith(".index.json"):
                yield file


def _small_files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir()):
        is_known = file.suffix in _COPIED_SUFFIXES or file.stem in _COPIED_NAMES
        if is_known and file.is_file() and not file.name.startswith("."):
            yield file


def _write_weights(
    source: Source, staging: Path, max_shard_bytes: int, report: Callable[[str], None]
) -> ShardWriter:
    writer = ShardWriter(staging, max_shard_bytes)
    for number, file in enumerate(source.weights.files, start=1):
        report(f"reading {file.name}, {number} of {len(source.weights.files)}")
        for name, tensor in read_tensors(file):
            if not source.layout.ignored.fullmatch(name):
                for target_name, converted in source.layout.convert(name, tensor):
                    writer.add(target_name, converted)
                    del converted
            # Names would hold a tensor until the next one is read.
            del tensor
    for name, tensor in source.layout.added.items():
        writer.add(name, tensor)
    writer.finish()
    return writer


def _write_config(source: Source, staging: Path, dtype: str) -> Path:
    unfinished = staging / f"{_CONFIG}.part"
    if source.layout.config is None:
        shutil.copyfile(config_file(source.folder), unfinished)
        return unfinished
    # What a file says of its type need not be what it holds.
    config = {name: value for name, value in source.layout.config.items() if value is not None}
    config.pop("torch_dtype", None)
    config |= {"dtype": dtype, "transformers_version": importlib.metadata.version("transformers")}
    write_json(unfinished, config)
    return unfinished


def _write_record(source: Source, staging: Path, rules: tuple[str, ...]) -> None:
    """Write what was done, without times and paths: equal conversions are equal folders."""
    folders = {"source": source.folder, "base": source.base, "tokenizer": source.tokenizer_folder}
    record: dict[str, object] = {
        name: {file.name: file_sha256(file) for file in _files_read(source, folder)}
        for name, folder in folders.items()
        if name == "source" or folder != source.folder
    }
    record["rules"] = rules
    record["versions"] = {
        "rgpt-batch": __version__,
        "python": platform.python_version(),
        **{name: version for name in _TOOLS if (version := _version(name))},
    }
    record["files"] = {
        file.name.removesuffix(".part"): file_sha256(file) for file in sorted(staging.iterdir())
    }
    write_json(staging / RECORD, record)


def _files_read(source: Source, folder: Path) -> list[Path]:
    weights = source.weights.files if folder == source.base else ()
    others = [file for file in folder.iterdir() if file.name.startswith("adapter_model.")]
    tiktoken = folder.glob("*.tiktoken")
    return sorted({*_small_files(folder), *weights, *others, *tiktoken})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
