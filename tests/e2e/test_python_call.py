from __future__ import annotations

import signal
from pathlib import Path

import pyarrow as pa
import pytest

from rgpt_batch import load_config, run_job, verify_output
from rgpt_batch.errors import ManifestMismatch
from tests.e2e.jobs import Job
from tests.e2e.outputs import read_output, row_differences


def test_run_job_gives_the_same_output_as_the_command_line(
    job: Job, clean_rows: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scored"
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    summary = run_job(load_config(job.config), [str(job.pairs)], str(output), quiet=True)
    assert row_differences(clean_rows, read_output(output)) == []
    assert summary.exit_code == 0
    assert (summary.num_units, summary.num_rows, summary.num_rows_scored) == (24, 96, 96)
    assert summary.num_rejected == {"NULL_QUERY": 3}
    assert summary.problems == ()
    assert summary.failures == ()
    assert not verify_output(output).problems
    assert capsys.readouterr() == ("", "")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    again = run_job(load_config(job.config), [str(job.pairs)], str(output), quiet=True)
    assert (again.exit_code, again.num_rows_scored, again.num_rows_before) == (0, 0, 96)
    other = load_config(job.config, ("protocol.max_length=30",))
    with pytest.raises(ManifestMismatch, match=r"protocol.max_length: was 40, is 30"):
        run_job(other, [str(job.pairs)], str(output), quiet=True)


@pytest.mark.ray
def test_run_job_uses_the_ray_that_runs_in_its_process(
    job: Job, clean_rows: pa.Table, tmp_path: Path, ray_address: str
) -> None:
    import ray

    config = load_config(job.config, ("executor.kind=ray", "executor.num_workers=2"))
    summary = run_job(config, [str(job.pairs)], str(tmp_path / "scored"), quiet=True)
    assert summary.exit_code == 0
    assert row_differences(clean_rows, read_output(tmp_path / "scored")) == []
    assert ray.is_initialized()
