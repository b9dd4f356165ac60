"""The files of jobs/, as far as they run or can be checked here."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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
