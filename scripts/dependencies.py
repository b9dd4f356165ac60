"""Write docs/dependencies.md: what the package needs, in which version, under which licence.

    python scripts/dependencies.py

Reads pyproject.toml, requirements/cpu.lock and the metadata of what is installed.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "dependencies.md"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def direct_dependencies() -> dict[str, dict[str, str]]:
    """Return extra → package → the versions that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = {"(always)": project["project"]["dependencies"]}
    groups |= project["project"]["optional-dependencies"]
    groups |= {f"{name} (development)": each for name, each in project["dependency-groups"].items()}
    return {group: dict(map(_split, each)) for group, each in groups.items()}


def _split(requirement: str) -> tuple[str, str]:
    match = _NAME.match(requirement)
    assert match, requirement
    return match[0], re.sub(r"^\[.*?\]", "", requirement[match.end() :])


def locked_versions() -> dict[str, str]:
    """Return package → version of the lock that `make setup` installs."""
    lines = (ROOT / "requirements" / "cpu.lock").read_text().splitlines()
    pins = (line.split(" ")[0].split(";")[0].partition("==") for line in lines if "==" in line)
    return {_normal(name): version for name, _, version in pins}


def licence(name: str) -> str:
    """Return the licence that a package declares: expression, classifier, or its own words."""
    try:
        metadata = importlib.metadata.metadata(name).json
    except importlib.metadata.PackageNotFoundError:
        return "not installed here"
    if expression := metadata.get("license_expression"):
        return str(expression)
    classifiers = metadata.get("classifier", [])
    declared = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License")]
    declared = [each for each in declared if each != "OSI Approved"]
    text = str(metadata.get("license", "")).strip().splitlines()
    return ", ".join(declared) or (text[0][:60] if text else "not declared")


def table() -> str:
    """Write the page."""
    locked = locked_versions()
    lines = [
        "# Direct dependencies",
        "",
        "Written by `python scripts/dependencies.py`. The lock, requirements/cpu.lock, pins these",
        "and all that they need; licences are what the packages' metadata declares.",
        "",
        "| for | package | allowed | locked | licence |",
        "|---|---|---|---|---|",
    ]
    for group, packages in direct_dependencies().items():
        for name, allowed in sorted(packages.items()):
            version = locked.get(_normal(name), "not locked")
            lines.append(f"| {group} | {name} | {allowed or 'any'} | {version} | {licence(name)} |")
    return "\n".join(lines) + "\n"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    TARGET.write_text(table(), encoding="utf-8")
