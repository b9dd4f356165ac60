"""The Dockerfile, as far as it can be checked where no image can be built."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

LOCK = ROOT / "requirements" / "gpu-py312.lock"


def instructions() -> list[tuple[str, str]]:
    """The instructions and their arguments, continued lines joined."""
    text = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def arguments(name: str) -> list[str]:
    return [rest for each, rest in instructions() if each == name]


def copied() -> list[str]:
    """What is copied from the repository."""
    found = [rest.split()[:-1] for rest in arguments("COPY") if not rest.startswith("--from")]
    return [name for names in found for name in names]


def test_the_base_is_pinned_to_the_version_that_the_lock_has() -> None:
    *_, base = arguments("FROM")
    locked = dict(line.split("==") for line in LOCK.read_text().split() if "==" in line)
    assert base == f"vllm/vllm-openai:v{locked['vllm']}"
    assert all(":" in image and not image.endswith(":latest") for image in arguments("FROM"))


def test_the_image_runs_the_command_and_not_as_root() -> None:
    # A number: Kubernetes' runAsNonRoot believes no name.
    user = int(arguments("USER")[-1])
    assert user > 0
    assert f"useradd --create-home --uid {user} rgpt" in arguments("RUN")[-1]
    (entry_point,) = json.loads(arguments("ENTRYPOINT")[-1])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert entry_point in project["scripts"]


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert set(copied()) == allowed
    for name in copied():
        assert (ROOT / name).exists()


def test_what_is_copied_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    # Some 5 s: one build.
    pytest.importorskip("build")
    source = tmp_path / "source"
    source.mkdir()
    for name in copied():
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, source],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("checks/vllm_versions.json", "configs/bloom-560m.yaml", "cli.py", "py.typed"):
        assert f"rgpt_batch/{name}" in names
