"""What becomes of a job, and of vLLM's own processes, when one of them is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.jobs import Job, ReadStatus, Start, write_shard
from tests.e2e.outputs import read_output
from tests.e2e.processes import Process, has_parts, held_after, parts

StartJob = Callable[..., Process]
NUM_UNITS = 24

pytestmark = pytest.mark.vllm


@pytest.fixture
def start_vllm(job: Job, start: Start, tiny_llama: Path, tmp_path: Path) -> StartJob:
    """Start a job whose engine has processes of its own, and imports vLLM in each, 15 s of CPU.

    It is held after its first unit.
    """

    def start_job(*options: str, num_processes: int = 1) -> Process:
        write_shard(tmp_path / "pairs" / "pairs.parquet", range(2 * NUM_UNITS))
        settings = {
            "model.name": tiny_llama,
            "model.dtype": "float32",
            "engine.method": "prompt-logprobs",
            # Processes of vLLM's own beside the driver.
            "engine.tensor_parallel_size": num_processes,
            "engine.vllm_args.distributed_executor_backend": "mp",
            # Otherwise the processes would ask for a GPU each.
            "executor.gpus_per_worker": 0,
            "engine.kv_cache_bytes": 64 * 2**20,
            "engine.max_num_seqs": 4,
            "engine.max_num_batched_tokens": 96,
            "engine.enforce_eager": "true",
            "units.max_rows": 2,
        }
        command = replace(job, pairs=tmp_path / "pairs").score(tmp_path / "scored", *options)
        for name, value in settings.items():
            command += ["-o", f"{name}={value}"]
        # One core each; vLLM would look for a NUMA node each.
        cores = sorted(os.sched_getaffinity(0))
        environment = {"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}"}
        process = start(
            command, environment=environment, without_torch=False, held_at=held_after(1)
        )
        process.wait_until_held()
        process.wait_until(partial(has_parts, tmp_path / "scored", 1))
        process.wait_until(lambda: len(engines(process)) == num_processes)
        return process

    return start_job


def engines(process: Process) -> list[int]:
    """Process ids of vLLM's own processes: the children of whoever has the engine."""
    workers = [pid for pid, name in process.relatives().items() if "ray::WorkerActor" in name]
    children = process.relatives(workers or [process.pid])
    return [pid for pid, name in children.items() if "resource_tracker" not in name]


def test_a_killed_engine_process_stops_the_job_with_the_cause_and_leaves_no_process_behind(
    start_vllm: StartJob, tmp_path: Path, read_status: ReadStatus
) -> None:
    output = tmp_path / "scored"
    # The other of the two may not stay behind.
    process = start_vllm(num_processes=2)
    os.kill(engines(process)[1], signal.SIGKILL)
    process.let_go()
    assert process.wait() == 1, process.output
    assert "vLLM failed" in process.output
    # vLLM's own processes have printed to the same log, and the error shows its end.
    (log,) = (output / "_rgpt" / "logs").iterdir()
    assert f"see the log {log} (host " in process.output
    before_the_error, _, _ = process.output.partition("see the log")
    assert "Warning" not in before_the_error
    assert "run the same command again" in process.output
    assert read_status(output)["state"] == "failed"
    assert 1 <= len(parts(output)) < NUM_UNITS
    assert not (output / "_SUCCESS").exists()
    process.wait_until_all_gone()


def test_the_engines_processes_end_when_the_driver_is_killed(
    start_vllm: StartJob, tmp_path: Path
) -> None:
    process = start_vllm()
    process.send(signal.SIGKILL)
    process.wait_until_all_gone()
    assert 1 <= len(parts(tmp_path / "scored")) < NUM_UNITS
    assert not (tmp_path / "scored" / "_SUCCESS").exists()


@pytest.mark.long
@pytest.mark.ray
def test_ray_replaces_the_worker_whose_engine_process_was_killed(
    start_vllm: StartJob, tmp_path: Path
) -> None:
    # vLLM is imported four times: 60 s of CPU. Workers and engines that die have shorter tests.
    output = tmp_path / "scored"
    process = start_vllm("--executor", "ray", "-o", "executor.num_workers=1")
    os.kill(engines(process)[0], signal.SIGKILL)
    process.let_go()
    assert process.wait(400) == 0, process.output
    assert (output / "_SUCCESS").exists()
    assert read_output(output).num_rows == 2 * NUM_UNITS
    process.wait_until_all_gone()
