"""What a refusal looks like: an error with its cause, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.conversion.convert import convert
from rgpt_batch.errors import ConfigError


def refused(source: Path, said: str, target: Path | None = None, **options: Any) -> None:
    target = target or source.with_name("converted")
    beside = set(source.parent.iterdir())
    with pytest.raises(ConfigError, match=said):
        convert(source, target, **options)
    assert set(source.parent.iterdir()) == beside
