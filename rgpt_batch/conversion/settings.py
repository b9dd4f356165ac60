"""JSON files of a model folder, read as plain settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rgpt_batch.errors import ConfigError


class Settings:
    """The settings of one JSON file, with errors that name it.

    Raises:
        ConfigError: The file cannot be read, or holds no JSON object.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self.values: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{file}: cannot be read as JSON: {error}") from error
        if not isinstance(self.values, dict):
            raise ConfigError(f"{file}: holds no JSON object.")

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a setting, or the default where it is absent or null."""
        return self.values[name] if name in self else default

    def integer(self, *names: str) -> int:
        """Return a positive integer, by the first of its names that is there.

        Raises:
            ConfigError: It is not there, or no positive integer.
        """
        name = self._present(names)
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._unexpected(name, "a positive integer")
        return value

    def number(self, *names: str) -> float:
        """Return a positive number, by the first of its names that is there.

        Raises:
            ConfigError: It is not there, or no positive number.
        """
        name = self._present(names)
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self._unexpected(name, "a positive number")
        return float(value)

    def require(self, name: str, *accepted: Any) -> None:
        """Refuse a setting that changes what the model computes; absent, it is the first value.

        Raises:
            ConfigError: It has another value.
        """
        value = self.get(name, accepted[0])
        if value not in accepted:
            wanted = " or ".join(repr(each) for each in accepted)
            raise ConfigError(
                f"{self.file}: '{name}' is {value!r}. Only models with {wanted} can be converted."
            )

    def _unexpected(self, name: str, expected: str) -> ConfigError:
        return ConfigError(f"{self.file}: '{name}' is {self.get(name)!r}, expected {expected}.")

    def _present(self, names: tuple[str, ...]) -> str:
        for name in names:
            if name in self:
                return name
        wanted = " or ".join(f"'{name}'" for name in names)
        raise ConfigError(f"{self.file}: {wanted} is missing. Download the file again.")
