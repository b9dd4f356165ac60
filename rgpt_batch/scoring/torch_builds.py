"""Whether the packages that extend torch were built for the torch that is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

# What vLLM's CPU build asks for. It needs none of them for text, and package indexes that have no
# CPU builds give it CUDA builds, beside which transformers loads no tokenizer and vLLM no model.
_EXTENSIONS = ("torchvision", "torchaudio", "torchcodec")


def wrong_builds() -> str | None:
    """Say which packages a CPU build of torch cannot load, and the fix; None where there are none.

    PyTorch marks its CPU builds: torch 2.13.0+cpu.
    """
    torch = _version("torch")
    if not torch or not _is_for_cpu(torch):
        return None
    found = {name: _version(name) for name in _EXTENSIONS}
    wrong = {name: v for name, v in found.items() if v and not _is_for_cpu(v)}
    if not wrong:
        return None
    packages = ", ".join(f"{name} {v}" for name, v in wrong.items())
    return (
        f"torch {torch} is a CPU build, and cannot load what is installed beside it: {packages}. "
        f"Nothing here needs them: pip uninstall {' '.join(wrong)} (or install their CPU builds)."
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_for_cpu(build: str) -> bool:
    return build.partition("+")[2] == "cpu"
