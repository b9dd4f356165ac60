"""The list of dependencies is complete."""

from __future__ import annotations

from dependencies import TARGET, direct_dependencies


def test_every_direct_dependency_is_listed_with_its_limits() -> None:
    text = TARGET.read_text(encoding="utf-8")
    for group, packages in direct_dependencies().items():
        for name, allowed in packages.items():
            assert f"| {group} | {name} | {allowed or 'any'} |" in text, (
                "run scripts/dependencies.py"
            )
