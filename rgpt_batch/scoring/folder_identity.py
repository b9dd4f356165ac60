"""What identifies a model in a folder: the content of the files that libraries load."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from rgpt_batch.errors import ConfigError

# Files up to this size are hashed whole; of larger ones, evenly spread samples. Training changes
# practically every weight, so samples tell two checkpoints apart at a thousandth of the reading.
_WHOLE_FILE_BYTES = 32 * 2**20
_NUM_SAMPLES = 64
_SAMPLE_BYTES = 64 * 2**10
_SUFFIXES = {".json", ".txt", ".model", ".safetensors", ".bin", ".pt", ".py", ".jinja", ".tiktoken"}


def folder_identity(folder: Path) -> str:
    """Return `sha256:…` over the names and contents of a model's files.

    Raises:
        ConfigError: The folder holds no model.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not any(file.suffix == ".json" for file in files):
        raise ConfigError(
            f"{folder}: the folder holds no model (no config.json or tokenizer.json)."
        )
    digest = hashlib.sha256()
    for file in files:
        # A name need not be UTF-8.
        digest.update(os.fsencode(file.name) + f"\0{file.stat().st_size}\0".encode())
        digest.update(_file_digest(file))
    return f"sha256:{digest.hexdigest()}"


def _file_digest(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_FILE_BYTES:
            return hashlib.file_digest(stream, "sha256").digest()
        digest = hashlib.sha256()
        for index in range(_NUM_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * index // (_NUM_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
        return digest.digest()
