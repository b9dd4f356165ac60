"""The configurations that come with the program: found by name, listed, and part of the wheel.

The wheel is built once, some 3 s of CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rgpt_batch import load_config
from rgpt_batch.config.shipped import shipped_configs
from rgpt_batch.config.systems import SYSTEMS
from rgpt_batch.engines.memory import Memory
from rgpt_batch.errors import ConfigError
from tests.conftest import ROOT, RunCli


def test_every_configuration_that_comes_with_the_program_is_of_one_system() -> None:
    configs = [system.config for system in SYSTEMS]
    assert len(set(configs)) == len({system.name for system in SYSTEMS}) == len(configs)
    assert shipped_configs().keys() - set(configs) == {"cpu-demo"}


def test_configuration_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("monot5-220m") == load_config(ROOT / "configs" / "monot5-220m.yaml")
    # A file of that name is meant first.
    Path("monot5-220m").write_text("model: {name: mine}\n")
    assert load_config("monot5-220m").model.name == "mine"
    with pytest.raises(ConfigError, match="no-such-name: cannot read the configuration"):
        load_config("no-such-name")


def test_models_lists_what_each_system_needs(run_cli: RunCli) -> None:
    done = run_cli("models", "--json", without_torch=False)
    assert done.returncode == 0, done.stderr
    rows = {row["config"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows.keys() == shipped_configs().keys() - {"cpu-demo"}
    for name, row in rows.items():
        assert Path(row["file"]) == shipped_configs()[name]
        assert row["kind"] == load_config(name).score.kind
    assert rows["monot5-3b"]["kind"] == "seq2seq"
    assert rows["monot5-3b"]["num_bytes_16_bit"] == 2 * rows["monot5-3b"]["num_parameters"]
    assert rows["bloom-560m"]["conversion"] is None
    shown = run_cli("models", without_torch=False).stdout
    assert "MonoT5-3B, seq2seq" in shown
    assert "2,852 M parameters, 5.7 GB in 16 bit; here: " in shown


def test_models_needs_no_torch(run_cli: RunCli) -> None:
    done = run_cli("models")
    assert done.returncode == 0, done.stderr
    assert "MonoT5-3B, seq2seq" in done.stdout


@pytest.mark.parametrize(
    ("num_bytes", "place"), [(60, "gpu"), (64, "gpu"), (65, "cpu"), (80, "cpu"), (81, None)]
)
def test_system_runs_where_its_weights_leave_room(num_bytes: int, place: str | None) -> None:
    # On CPUs weights are float32, twice as large.
    assert Memory(gpu=80, cpu=200).place_of(num_bytes) == place


def test_wheel_holds_the_configurations(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "from rgpt_batch import load_config; import rgpt_batch; print(rgpt_batch.__file__); "
        "print(load_config('rankt5-770m').score.relevant)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "installed",
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    file, label = done.stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert label == "<extra_id_10>"
