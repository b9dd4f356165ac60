"""Settings as nested dictionaries, before they are checked."""

from __future__ import annotations

from typing import Any

from rgpt_batch.errors import ConfigError


def set_option(settings: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Put a value where its dotted name says; sections that are missing are made.

    Args:
        settings: Is changed.
        name: Such as `input.columns.query`.
        value: Of any type; nothing is checked here.
        where: What an error calls it.

    Raises:
        ConfigError: What should be a section is a value.
    """
    *sections, option = name.split(".")
    for section in sections:
        if settings.get(section) is None:
            settings[section] = {}
        settings = settings[section]
        if not isinstance(settings, dict):
            raise ConfigError(f"{where}: '{section}' is a value, not a section.")
    settings[option] = value
