"""What identifies a model: a folder's content, a commit of the hub, or what a store lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.conversion.needed import (
    TOKENIZER_SOURCES,
    conversion_command,
    needed_for_model,
    needed_for_tokenizer,
)
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.folder_identity import folder_identity
from rgpt_batch.storage import checkpoints
from rgpt_batch.storage.hub import hub_errors

# What vLLM and transformers unpickle where they find no safetensors.
_PICKLED_SUFFIXES = {".bin", ".pt"}
_NUM_FILES_SHOWN = 3
# The names that SentencePiece's files go by.
_SENTENCEPIECE = {"tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model"}


def pinned(model: ModelConfig) -> ModelConfig:
    """Name model and tokenizer so that all workers load the same, wherever and whenever they start.

    Folders become absolute, hub revisions the commits that they mean now. The revision of a model
    in an object store is the digest of what is listed there.

    Raises:
        ConfigError: The hub's commit cannot be found; the model in a store is not the one that was
            pinned before; or see check_converted.
        StorageError: The store cannot be used.
    """
    # A job is refused here, before anything is planned for a folder that has to change.
    check_converted(model)
    tokenizer, tokenizer_revision = model.tokenizer_source
    return ModelConfig.model_validate(
        {
            **model.model_dump(),
            "name": _absolute(model.name),
            "revision": _pinned_revision(model.name, model.revision),
            "tokenizer": _absolute(tokenizer),
            "tokenizer_revision": _pinned_revision(tokenizer, tokenizer_revision),
        }
    )


def model_identity(name: str, revision: str | None) -> str:
    """Identify a model or tokenizer whose revision is pinned.

    Returns:
        `sha256:…` over a local folder's files, `hub:<name>@<commit>`, or `objects:…` over the
        names, sizes and ETags of a store's.

    Raises:
        ConfigError: The folder holds no model.
    """
    if checkpoints.is_stored(name):
        return f"objects:{revision}"
    folder = Path(name)
    return folder_identity(folder) if folder.is_dir() else f"hub:{name}@{revision}"


def on_this_machine(model: ModelConfig, *, weights: bool) -> ModelConfig:
    """Name folders instead of an object store's URIs; copies what is not here yet.

    Args:
        model: Which model and tokenizer.
        weights: Whether the weights are wanted, or the small files alone.

    Raises:
        ConfigError: There is no model, or it has other files than it was pinned to.
        StorageError: The store or the disk cannot be used.
    """
    changes: dict[str, str | None] = {}
    tokenizer, tokenizer_revision = model.tokenizer_source
    if checkpoints.is_stored(tokenizer):
        folder = checkpoints.local_copy(tokenizer, tokenizer_revision, weights=False)
        changes |= {"tokenizer": str(folder), "tokenizer_revision": None}
    if checkpoints.is_stored(model.name):
        folder = checkpoints.local_copy(model.name, model.revision, weights=weights)
        changes |= {"name": str(folder), "revision": None}
    return model.model_copy(update=changes)


def check_converted(model: ModelConfig) -> None:
    """Refuse a folder that no engine loads, or loads with other tokens, until it is converted.

    Raises:
        ConfigError: With the command that converts it.
    """
    here = on_this_machine(model, weights=False)
    tokenizer, _ = here.tokenizer_source
    needed = needed_for_model(Path(here.name))
    if needed is not None:
        raise ConfigError(_of_the_store(needed, model.name, here.name))
    needed = needed_for_tokenizer(Path(tokenizer))
    if needed is not None:
        raise ConfigError(_of_the_store(needed, model.tokenizer_source[0], tokenizer))


def check_weights(model: ModelConfig) -> None:
    """Refuse a checkpoint whose weights are all pickled, unless the configuration allows them.

    Engines are told to load safetensors alone, so nothing depends on what is found here but the
    message: theirs do not say that there are weights, and which option reads them.

    Raises:
        ConfigError: The checkpoint has pickled weights and no others.
    """
    if model.allow_pickled_weights:
        return
    names = _file_names(model.name, model.revision)
    pickled = sorted(name for name in names if Path(name).suffix in _PICKLED_SUFFIXES)
    if pickled and not any(name.endswith(".safetensors") for name in names):
        more = ", …" if len(pickled) > _NUM_FILES_SHOWN else ""
        raise ConfigError(
            f"model '{model.name}': its weights are pickled "
            f"({', '.join(pickled[:_NUM_FILES_SHOWN])}{more}), and there are no safetensors. "
            f"Convert them once: {_conversion(model.name)}. Or set "
            "-o model.allow_pickled_weights=true to read them with torch's restricted unpickler."
        )


def check_tokenizer(name: str, revision: str | None) -> None:
    """Refuse a tokenizer that exists only in SentencePiece's format.

    Raises:
        ConfigError: There is such a file and no tokenizer.json.
    """
    names = _file_names(name, revision)
    found = sorted(_SENTENCEPIECE.intersection(names))
    if found and "tokenizer.json" not in names:
        fix = (
            "Put a tokenizer.json whose ids equal those of sentencepiece into a folder"
            if found[0] not in TOKENIZER_SOURCES
            else f"Convert it once: {_conversion(name)}"
        )
        raise ConfigError(
            f"the tokenizer of '{name}': {found[0]} without tokenizer.json. What "
            "transformers 5 makes of it by itself gives some texts other ids than the model was "
            "trained with. "
            f"{fix}, and set model.tokenizer to that folder."
        )


def tokenizer_settings(name: str, revision: str | None) -> dict[str, Any]:
    """Return what tokenizer_config.json says; nothing where there is none."""
    name = _folder_or_hub_id(name, revision)
    path: Path | str = Path(name, "tokenizer_config.json")
    if not Path(name).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HFValidationError

        try:
            path = hf_hub_download(name, "tokenizer_config.json", revision=revision)
        except hub_errors(HFValidationError):
            return {}
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Write it again.") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected a JSON object. Write it again.")
    return settings


def tokenizer_rule(name: str, revision: str | None) -> dict[str, str]:
    """Say for a job's identity how ids are read, where two versions of this program differ.

    Up to 0.1.0 normalizer and pre-tokenizer came from the class that tokenizer_config.json names.
    With these classes they were tokenizer.json's then, too.
    """
    named = tokenizer_settings(name, revision).get("tokenizer_class")
    same = (None, "PreTrainedTokenizerFast", "TokenizersBackend")
    return {} if named in same else {"tokenizer.ids": "tokenizer.json"}


def local_folder(name: str, revision: str | None) -> Path | None:
    """Return the folder of a model's files: its own, or that in the hub's cache; None without one.

    The cache may hold some of the files only.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _file_names(name: str, revision: str | None) -> list[str]:
    """List the files of a model's folder; none where neither the hub nor its cache knows them."""
    if checkpoints.is_stored(name):
        return checkpoints.file_names(name, revision)
    if not Path(name).is_dir():
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import HFValidationError

        try:
            if not constants.HF_HUB_OFFLINE:
                files: list[str] = HfApi().list_repo_files(name, revision=revision)
                return [file for file in files if "/" not in file]
        except hub_errors(HFValidationError):
            pass  # The cache may still know it; or it is a folder that is not there.
    folder = local_folder(name, revision)
    return [] if folder is None else [file.name for file in folder.iterdir()]


def _absolute(name: str) -> str:
    # A worker's current folder need not be the driver's.
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def _folder_or_hub_id(name: str, revision: str | None) -> str:
    """Return the folder with a stored model's small files, or the name of any other."""
    if not checkpoints.is_stored(name):
        return name
    return str(checkpoints.local_copy(name, revision, weights=False))


def _conversion(name: str) -> str:
    if not checkpoints.is_stored(name):
        return conversion_command(Path(name))
    return (
        "copy the folder to a disk, run `rgpt-batch convert FOLDER CONVERTED`, upload CONVERTED, "
        "and name that"
    )


def _of_the_store(needed: str, name: str, folder: str) -> str:
    """Say what a conversion is needed for where a copy of a stored model showed it."""
    if not checkpoints.is_stored(name):
        return needed
    reason = needed.removeprefix(f"{folder}: ").partition(" Convert it once")[0]
    return f"{name}: {reason} Convert it once: {_conversion(name)}."


def _pinned_revision(name: str, revision: str | None) -> str | None:
    if checkpoints.is_stored(name):
        return checkpoints.digest_of(name, revision)
    return revision if Path(name).is_dir() else _hub_commit(name, revision)


def _hub_commit(name: str, revision: str | None) -> str:
    """Ask the hub, or where it cannot be reached the local cache, for the commit of a revision."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if not constants.HF_HUB_OFFLINE:
            commit = HfApi().model_info(name, revision=revision).sha
            if commit:
                return commit
    except HFValidationError as error:
        raise ConfigError(f"model '{name}': no such folder, and not a hub id.") from error
    except hub_errors():
        pass  # The cache may still know it.
    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    except HFValidationError as error:
        raise ConfigError(f"model '{name}': no such folder, and not a hub id.") from error
    if isinstance(cached, str):
        # …/snapshots/<commit>/config.json
        return Path(cached).parent.name
    raise ConfigError(
        f"model '{name}': no such folder, and the hub (revision {revision or 'main'}) gives no "
        "commit for it. Check the name, the network, and HF_TOKEN for private models."
    )
