"""The files of jobs/, as far as they run or can be checked here."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from rgpt_batch.cli import cli
from rgpt_batch.commands.job_options import load_job_config
from tests.conftest import ROOT
from tests.e2e.jobs import Job, Start

JOBS = ROOT / "jobs"
HERE = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_tasks_of_the_slurm_array_share_a_job(job: Job, start: Start, tmp_path: Path) -> None:
    script = JOBS / "slurm.sh"
    lines = script.read_text().splitlines()
    # sbatch reads its options up to the first command.
    options = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert [line for line in lines if "#SBATCH" in line and line not in options] == []
    assert any(re.fullmatch(r"#SBATCH --array=\d+-\d+", line) for line in options)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, script], check=True)

    command = ["bash", script, job.config, job.pairs, tmp_path / "scored", *job.slow]
    tasks = [start(command, environment=HERE) for _ in range(2)]
    assert [task.wait() for task in tasks] == [0, 0], [task.output for task in tasks]
    shares = [int(task.output.split("of which ")[1].split(" in this run")[0]) for task in tasks]
    assert sum(shares) == 96


def manifests() -> list[tuple[str, dict[str, Any]]]:
    return [(path.name, yaml.safe_load(path.read_text())) for path in sorted(JOBS.glob("*.yaml"))]


def dag_commands() -> list[str]:
    """The command lines of the Airflow DAG, without Airflow."""
    tree = ast.parse((JOBS / "airflow_dag.py").read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        ast.literal_eval(keyword.value)
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "bash_command"
    ]


def command_lines() -> list[list[str]]:
    """All commands of rgpt-batch in the files of jobs/ that are not scripts."""
    lines = [shlex.split(command.replace("{{ ds }}", "2026-11-23")) for command in dag_commands()]
    for _, manifest in manifests():
        if manifest["kind"] == "RayJob":
            lines.append(shlex.split(manifest["spec"]["entrypoint"]))
        else:
            (container,) = pod(manifest)["containers"]
            lines.append([*container["command"], *container["args"]])
    return lines


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]
    return (spec.get("jobTemplate", {}).get("spec") or spec)["template"]["spec"]


@pytest.mark.parametrize("line", command_lines(), ids=lambda line: line[1])
def test_every_command_of_a_manifest_is_understood(line: list[str], tmp_path: Path) -> None:
    if line[1] == "verify":
        # It looks at once whether the folder is there.
        line = [*line[:2], *(str(tmp_path) if "/scored/" in word else word for word in line[2:])]
    assert line[0] == "rgpt-batch"
    command = cli.get_command(click.Context(cli), line[1])
    assert command is not None
    with command.make_context(line[1], line[2:]) as context:
        settings = context.params.get("overrides", ())
    if line[1] == "score":
        config = ROOT / "configs" / Path(str(context.params["config"])).name
        assert load_job_config(str(config), settings).executor.gpus_per_worker == 1


def test_the_ray_job_scales_from_zero_and_keeps_its_head_off_spot_machines() -> None:
    (spec,) = (m["spec"]["rayClusterSpec"] for _, m in manifests() if m["kind"] == "RayJob")
    assert spec["enableInTreeAutoscaling"] is True
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "spot" not in head["template"]["spec"]["nodeSelector"].values()
    groups = spec["workerGroupSpecs"]
    assert [group["groupName"] for group in groups] == ["gpu-spot", "gpu-on-demand"]
    assert all(group["replicas"] == group["minReplicas"] == 0 for group in groups)
    most = sum(group["maxReplicas"] for group in groups)
    entrypoint = next(line for line in command_lines() if "executor.max_workers=12" in line)
    assert most == 12 and entrypoint
    for template in (head["template"], *(group["template"] for group in groups)):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        (container,) = template["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_pods_are_not_started_again_for_what_does_not_go_away() -> None:
    for name, manifest in manifests():
        if manifest["kind"] == "RayJob":
            continue
        spec = manifest["spec"].get("jobTemplate", {}).get("spec") or manifest["spec"]
        rule = spec["podFailurePolicy"]["rules"][0]
        assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2, 3], name
        assert rule["onExitCodes"]["containerName"] == pod(manifest)["containers"][0]["name"]
        # A policy needs this.
        assert pod(manifest)["restartPolicy"] == "Never"


def submit_script() -> Any:
    spec = importlib.util.spec_from_file_location("submit", JOBS / "submit.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_submission_is_named_by_its_output_and_what_its_scores_depend_on(
    job: Job, tmp_path: Path
) -> None:
    def name(output: str, *options: str) -> str:
        arguments = job.score(tmp_path / output, *options)
        found: str = submit.job_name(list(map(str, arguments[arguments.index("score") + 1 :])))
        return found

    submit = submit_script()
    first = name("scored")
    assert re.fullmatch(r"rgpt-[0-9a-f]{12}", first)
    assert first == name("scored", "--quiet", "--executor", "ray", "-o", "units.max_rows=8")
    assert len({first, name("elsewhere"), name("scored", "--max-length", "30")}) == 3


def test_a_submission_is_repeated_only_where_the_last_one_has_ended_without_success() -> None:
    step = submit_script().next_submission
    assert step("rgpt-1", {"rgpt-2-1": "RUNNING"}) == ("rgpt-1-1", None)
    assert step("rgpt-1", {"rgpt-1-1": "RUNNING"}) == ("rgpt-1-1", "RUNNING")
    assert step("rgpt-1", {"rgpt-1-1": "SUCCEEDED"}) == ("rgpt-1-1", "SUCCEEDED")
    ended = {"rgpt-1-1": "STOPPED", "rgpt-1-2": "FAILED"}
    assert step("rgpt-1", ended) == ("rgpt-1-3", None)
    assert step("rgpt-1", {**ended, "rgpt-1-3": "PENDING"}) == ("rgpt-1-3", "PENDING")
