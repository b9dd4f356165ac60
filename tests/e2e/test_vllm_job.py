"""One job with real vLLM, a real (random) model and real Ray, from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.jobs import Finish, Job
from tests.e2e.outputs import read_output
from tests.e2e.processes import rgpt_batch


@pytest.mark.vllm
@pytest.mark.ray
def test_vllm_on_ray_scores_as_the_float32_reference_does(
    job: Job, finish: Finish, tiny_llama: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    command = job.score(output, "--executor", "ray", "--model", tiny_llama)
    options = {
        "engine.method": "auto",
        "engine.kv_cache_bytes": 64 * 2**20,
        "engine.max_num_seqs": 16,
        "engine.max_num_batched_tokens": 96,
        "engine.enforce_eager": "true",
        "model.dtype": "float32",
        "units.max_rows": 16,
    }
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    code, said = finish(command, without_torch=False, fresh=True)
    assert code == 0, said
    assert "96, of which 96 in this run" in said
    assert re.search(r"engine +query-rows", said)
    # What vLLM and torch print is in the worker's log.
    assert "Warning" not in said
    (log,) = (path for path in (output / "_rgpt/logs").iterdir() if "driver" not in path.name)
    assert "Warning" in log.read_text()
    table = read_output(output)
    assert table["doc_id"].to_pylist() == [f"d{row}" for row in range(96)]
    assert table["score"].null_count == 3

    verify = rgpt_batch("verify", output, "--sample", "60")
    code, said = finish(verify, without_torch=False)
    assert code == 0, said
    assert "all is well" in said
