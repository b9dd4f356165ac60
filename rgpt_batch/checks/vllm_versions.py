"""What is known of versions of vLLM: docs/vllm-versions.md, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_FINDINGS = files("rgpt_batch.checks") / "vllm_versions.json"


def vllm_verdict(version: str) -> str:
    """Say in a few words what is known of a version of vLLM, of its CPU build as well."""
    findings: Mapping[str, Any] = json.loads(_FINDINGS.read_text())
    found = findings.get(version)
    if found is None:
        return "which nobody has looked at: engines say what they miss when they start"
    lacks = found.get("lacks", {})
    without = [name for name, parts in lacks.items() if parts]
    # Engines by their methods, and what they do better with.
    methods = ", ".join(name for name in lacks if name not in without)
    verdict = f"has what we use for {methods}" if methods else "not read"
    if without:
        verdict += f"; lacks parts for {', '.join(without)}"
    ran = found.get("ran")
    if ran is None:
        return f"{verdict}; read, not run"
    outcome = f"{len(ran['failed'])} tests failed" if ran["failed"] else "all tests passed"
    return f"{verdict}; run on CPU {ran['date']}: {outcome}"
