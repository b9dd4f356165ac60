"""The target appears whole or not at all, in constant memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from rgpt_batch.conversion.convert import convert
from rgpt_batch.errors import ConfigError
from tests.commands.start import Running, start
from tests.conftest import ROOT
from tests.conversion.checkpoints import QWEN, qwen_tensors, save


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversion:
    """A process that converts, and waits at each report for a line."""

    process: Running
    lines: IO[str]
    reports: IO[str]

    def run_until(self, report: str) -> None:
        for line in self.reports:
            if line.strip() == report:
                return
            self.lines.write("\n")
            self.lines.flush()
        raise AssertionError(f"ended before '{report}'")


@contextmanager
def _converting(source: Path, target: Path) -> Iterator[_Conversion]:
    module = "tests.conversion.converting"
    command: list[str | Path] = [sys.executable, "-m", module, source, target, "100000"]
    (given, lines), (reports, told) = os.pipe(), os.pipe()
    with open(os.devnull, "wb") as nothing:
        process = start(command, (given, told, nothing))
    os.close(given)
    os.close(told)
    try:
        with open(lines, "w") as to_it, open(reports) as from_it:
            yield _Conversion(process=process, lines=to_it, reports=from_it)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(
    ("report", "unfinished"),
    [
        ("reading pytorch_model-00001-of-00002.bin, 1 of 2", "tokenizer.json"),
        ("reading pytorch_model-00002-of-00002.bin, 2 of 2", "shard-3.part"),
        ("computing hashes", "model.safetensors.index.json"),
    ],
)
def test_killed_conversion_leaves_nothing_that_loads(
    qwen: Path, tmp_path: Path, report: str, unfinished: str
) -> None:
    target = tmp_path / "qwen2"
    staging = tmp_path / ".qwen2.converting"
    with _converting(qwen, target) as conversion:
        conversion.run_until(report)
        conversion.process.send_signal(signal.SIGKILL)
        assert conversion.process.wait() == -signal.SIGKILL
    assert not target.exists()
    assert (staging / unfinished).is_file()
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(staging)
    # It cannot be told from one that runs, so nothing is deleted unasked.
    with pytest.raises(ConfigError, match=rf"{staging.name}: another conversion .* delete that"):
        convert(qwen, target)
    for file in staging.iterdir():
        file.unlink()
    staging.rmdir()
    convert(qwen, target)
    AutoModelForCausalLM.from_pretrained(target)


def test_stopped_conversion_cleans_up(qwen: Path, tmp_path: Path) -> None:
    with _converting(qwen, tmp_path / "qwen2") as conversion:
        conversion.run_until("computing hashes")
        conversion.process.send_signal(signal.SIGTERM)
        assert conversion.process.wait() == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["qwen"]


def test_of_two_conversions_to_one_place_the_second_is_refused(qwen: Path, tmp_path: Path) -> None:
    target = tmp_path / "qwen2"
    with _converting(qwen, target) as conversion:
        conversion.run_until("computing hashes")
        with pytest.raises(ConfigError, match="another conversion"):
            convert(qwen, target)
        conversion.lines.close()
        assert conversion.process.wait() == 0
    AutoModelForCausalLM.from_pretrained(target)


def test_target_that_appears_meanwhile_is_left_alone(qwen: Path, tmp_path: Path) -> None:
    target = tmp_path / "qwen2"

    def report(message: str) -> None:
        if message == "computing hashes":
            target.mkdir()

    with pytest.raises(ConfigError, match="exists already"):
        convert(qwen, target, report=report)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen", "qwen2"]
    assert not any(target.iterdir())


def test_memory_is_that_of_a_shard_and_not_of_the_model(
    tmp_path: Path, tokenizer_files: Path
) -> None:
    # Costs 8 seconds of CPU and 0.8 GB of disk.
    config = QWEN | {"hidden_size": 512, "kv_channels": 128, "intermediate_size": 3072}
    config |= {"num_hidden_layers": 12, "vocab_size": 4000}
    tensors = qwen_tensors(config)
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    source = save(tmp_path / "qwen", config, tensors, num_shards=12)
    shutil.copyfile(tokenizer_files / "qwen.tiktoken", source / "qwen.tiktoken")
    del tensors

    command = [sys.executable, "-m", "tests.conversion.memory"]
    command += [str(source), str(tmp_path / "target"), "0", str(16 * 2**20), str(2**30)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    in_shards, in_one = map(int, done.stdout.split())

    # A shard of the source that is mapped, one of the target, one tensor and its copy: 16 MiB each.
    assert num_bytes > 160 * 2**20
    limit = 64 * 2**20
    assert in_shards < limit
    # The control: with all in one shard, the model would be seen. Not all of it, since the process
    # has some free memory of its own from before.
    assert in_one > 2 * limit


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_file_larger_than_the_memory_is_converted_or_refused(
    suffix: str, tmp_path: Path, tokenizer_files: Path
) -> None:
    # 170 MiB in one file; the process is given 96 MiB. Costs 8 seconds of CPU each.
    config = QWEN | {"hidden_size": 512, "kv_channels": 128, "intermediate_size": 3072}
    config |= {"num_hidden_layers": 12, "vocab_size": 4000}
    tensors = qwen_tensors(config)
    source = save(tmp_path / "qwen", config, tensors, num_shards=1)
    if suffix == "safetensors":
        (source / "pytorch_model.bin").unlink()
        save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(tokenizer_files / "qwen.tiktoken", source / "qwen.tiktoken")
    target = tmp_path / "qwen2"
    command = [sys.executable, "-m", "tests.conversion.memory", str(source), str(target)]
    command += [str(96 * 2**20), str(16 * 2**20)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if suffix == "safetensors":
        assert done.returncode == 0, done.stderr
        assert (target / "model.safetensors.index.json").is_file()
    else:
        # torch would have to map all of it, in a way for which the system counts all of it.
        assert done.returncode == 1
        assert "pytorch_model.bin: the system gives no memory for a file of" in done.stderr
        assert "Traceback" not in done.stderr
        assert not target.exists()
