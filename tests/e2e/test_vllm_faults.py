"""What becomes of a job, and of vLLM's own processes, when one of them is killed."""

import os
import signal

import pytest

from tests.e2e.processes import parts

pytestmark = pytest.mark.vllm


def test_a_killed_engine_process_stops_the_job_with_the_cause_and_leaves_no_process_behind(
    job, start, tiny_llama, tmp_path, read_status
):
    output = tmp_path / "scored"
    options = {
        "model.name": tiny_llama,
        "model.dtype": "float32",
        "engine.method": "prompt-logprobs",
        # Two processes of vLLM's own beside the driver.
        "engine.tensor_parallel_size": 2,
        "engine.kv_cache_bytes": 64 * 2**20,
        "engine.max_num_seqs": 4,
        "engine.max_num_batched_tokens": 96,
        "engine.enforce_eager": "true",
        "units.max_rows": 2,
    }
    command = job.score(output)
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    # One core each; vLLM would look for a NUMA node each.
    cores = sorted(os.sched_getaffinity(0))
    environment = {"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}"}
    process = start(command, environment=environment, without_torch=False)
    process.wait_until(lambda: len(parts(output)) >= 1, 300)
    engines = [pid for pid, name in process.relatives().items() if "VLLM::Worker" in name]
    assert len(engines) == 2
    os.kill(engines[1], signal.SIGKILL)
    assert process.wait() == 1, process.output
    assert "vLLM failed" in process.output
    assert "run the same command again" in process.output
    assert read_status(output)["state"] == "failed"
    assert 1 <= len(parts(output)) < 48
    assert not (output / "_SUCCESS").exists()
    process.wait_until_all_gone()
