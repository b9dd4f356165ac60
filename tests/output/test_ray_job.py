"""The command line on a Ray cluster of its own, with input and output on S3."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.jobs import write_job
from tests.e2e.outputs import read_output, row_differences
from tests.e2e.processes import Process, rgpt_batch, started
from tests.servers.faulty_proxy import FaultyProxy, Hold, seeded


def _output(s3: Any, bucket: str) -> dict[str, bytes]:
    found = s3.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]
    return {
        meta["Key"].removeprefix("out/"): s3.get_object(Bucket=bucket, Key=meta["Key"])[
            "Body"
        ].read()
        for meta in found
    }


@pytest.mark.ray
def test_ray_job_from_s3_to_s3_that_is_killed_resumes_and_equals_a_local_one(
    proxy: FaultyProxy, bucket: str, s3: Any, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job", tiny_tokenizer, output={"query_token_logprobs": True})
    with started(job.score(tmp_path / "local"), tmp_path / "log-local") as local:
        assert local.wait() == 0, local.output
    for shard in job.pairs.iterdir():
        s3.upload_file(str(shard), bucket, f"in/{shard.name}")
    output = f"s3://{bucket}/out"
    command = rgpt_batch(
        *("score", "-c", job.config, "-i", f"s3://{bucket}/in/*.parquet", "--output", output),
        *("--executor", "ray", "-o", "executor.num_workers=2", "-o", "executor.cpus_per_worker=0"),
    )

    def num_parts() -> int:
        return s3.list_objects_v2(Bucket=bucket, Prefix="out/part-")["KeyCount"]

    proxy.choose = hold = Hold("PUT", "/out/part-", 3)
    with started(command, tmp_path / "log-killed") as killed:
        try:
            killed.wait_until(lambda: num_parts() >= 3)
            killed.kill_group()
            killed.wait_until_all_gone()
        finally:
            hold.end.set()
    assert num_parts() == 3
    assert "_SUCCESS" not in _output(s3, bucket)

    proxy.restart_counting(seeded(11, 0.03))
    with started(command, tmp_path / "log") as process:
        assert process.wait() == 0, process.output
    proxy.restart_counting(lambda request: None)
    files = _output(s3, bucket)
    parts = [content for name, content in sorted(files.items()) if name.startswith("part-")]
    table = pa.concat_tables([pq.read_table(io.BytesIO(content)) for content in parts])
    assert row_differences(read_output(tmp_path / "local"), table) == []
    assert json.loads(files["_SUCCESS"])["num_rows"] == job.num_rows

    def ask(*arguments: str | Path) -> Process:
        with started(rgpt_batch(*arguments), tmp_path / f"log-{arguments[0]}") as asked:
            assert asked.wait() == 0, asked.output
            return asked

    assert f"{job.num_units} of {job.num_units} committed" in ask("status", output).output
    assert "all is well" in ask("verify", output, "--sample", "5").output
    for scored, run in ((output, "s3.trec"), (tmp_path / "local", "local.trec")):
        ask("rank", scored, "--output", tmp_path / run)
    assert (tmp_path / "s3.trec").read_bytes() == (tmp_path / "local.trec").read_bytes()
    assert (tmp_path / "s3.trec").stat().st_size > 0
