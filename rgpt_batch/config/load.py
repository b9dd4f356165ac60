"""A configuration from YAML and from `-o` options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rgpt_batch.config.arguments import Location, as_location, folded
from rgpt_batch.config.options import JobConfig
from rgpt_batch.config.settings import set_option
from rgpt_batch.config.shipped import shipped_configs
from rgpt_batch.config.validation import validated
from rgpt_batch.config.yaml_text import load_yaml
from rgpt_batch.errors import ConfigError


def load_config(path: Location | None, overrides: str | Sequence[str] = ()) -> JobConfig:
    """Read a configuration.

    Folders in the file count from where the file is: `model.name` and `model.tokenizer`, if they
    begin with ./ or ../, or name a folder there. Anything else is a hub id, or counts from the
    working folder, as all that an override names.

    Args:
        path: YAML file, or the name of one that comes with the program, such as monot5-220m; None
            starts from the defaults alone.
        overrides: `dotted.key=value`, one or several, the value in YAML; later ones win.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    settings: Any = {}
    if path is not None:
        path = as_location(path, "configuration")
        try:
            file = Path(path) if Path(path).is_file() else shipped_configs().get(path, Path(path))
            settings = load_yaml(file.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot read the configuration: {error}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, found {type(settings).__name__}.")
    if path is not None:
        _count_from(Path(path).parent.resolve(), settings)
    for override in [overrides] if isinstance(overrides, str) else overrides:
        _apply(override, settings)
    return validated(JobConfig, settings, str(path or "configuration"))


def _count_from(folder: Path, settings: dict[str, Any]) -> None:
    """Spell out the paths of a file's settings that count from the file's folder."""
    model = settings.get("model")
    for option in ("name", "tokenizer"):
        if not isinstance(model, dict) or not isinstance(given := model.get(option), str):
            continue
        is_relative = given.startswith(("./", "../")) or given in (".", "..")
        if is_relative or (given and (folder / given).is_dir()):
            model[option] = folded(str(folder / given))


def _apply(override: str, settings: dict[str, Any]) -> None:
    key, separator, text = override.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"-o {override}: expected key=value, such as engine.max_num_seqs=128.")
    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"-o {override}: the value is not valid YAML: {error}") from error
    set_option(settings, key, value, f"-o {override}")
