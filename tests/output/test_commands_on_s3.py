"""Commands on an output folder that lies on S3: report, retry-failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from rgpt_batch import run_job
from rgpt_batch.commands.scoring import retry_failed
from rgpt_batch.output import open_store
from tests.jobs import fake_config
from tests.report.jobs import UNITS, resumed_job, write_pairs, write_report
from tests.servers.faulty_proxy import Fault, FaultyProxy, always, seeded


def test_report_of_an_output_on_s3_is_that_of_a_local_copy(
    proxy: FaultyProxy, bucket: str, s3: Any, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    local = resumed_job(tiny_tokenizer, tmp_path).folder
    for path in local.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), bucket, f"out/{path.relative_to(local)}")
    proxy.restart_counting(seeded(5, 0.1, (Fault.CUT_REPLY, Fault.ERROR_500, Fault.DROP_REQUEST)))
    temp_folder = tmp_path / "temp"
    temp_folder.mkdir()
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("".join(f"q{i % 5} 0 d{i} {int(i % 3 == 0)}\n" for i in range(60)))

    output = f"s3://{bucket}/out"
    options = ("--qrels", qrels, "--temp-folder", temp_folder)
    for folder, page in ((output, "s3.html"), (local, "local.html")):
        result = write_report(folder, "--to", tmp_path / page, *options)
        assert result.exit_code == 0, result.output
    assert proxy.injected
    assert list(temp_folder.iterdir()) == []
    found = (tmp_path / "s3.html").read_text()
    assert output in found
    assert found.replace(output, str(local)) == (tmp_path / "local.html").read_text()


def test_report_of_an_output_on_s3_needs_a_local_page(bucket: str) -> None:
    output = f"s3://{bucket}/out"
    without = write_report(output)
    assert without.exit_code == 2
    assert "--to is needed" in without.output
    elsewhere = write_report(output, "--to", f"s3://{bucket}/report.html")
    assert "a URI, expected a local path" in str(elsewhere.exception)


def test_units_that_a_store_refused_are_retried(
    proxy: FaultyProxy, bucket: str, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    config = fake_config(tiny_tokenizer, *UNITS, "executor.max_attempts=1")
    output = f"s3://{bucket}/out"
    proxy.restart_counting(always("PUT", "part-000003", Fault.DENY))
    summary = run_job(config, [str(write_pairs(tmp_path / "pairs"))], output, quiet=True)
    assert summary.exit_code == 3
    assert [failure.unit_id for failure in summary.failures] == ["000003"]

    proxy.restart_counting(lambda request: None)
    result = CliRunner().invoke(retry_failed, [output], standalone_mode=False)
    assert result.return_value == 0, result.output
    assert "8 in this run and 52 before" in result.output
    store = open_store(output)
    success = store.listing().success
    assert success is not None and success.num_rows == 60
    assert store.read_failures() == []


def test_a_unit_that_has_failed_in_a_shared_job_is_tried_again_by_the_next_process(
    proxy: FaultyProxy, bucket: str, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    config = fake_config(tiny_tokenizer, *UNITS, "executor.max_attempts=1")
    store, pairs = open_store(f"s3://{bucket}/out"), [str(write_pairs(tmp_path / "pairs"))]
    proxy.restart_counting(always("PUT", "part-000003", Fault.DENY))
    summary = run_job(config, pairs, store.location, join=True, quiet=True)
    assert summary.exit_code == 3
    assert [failure.unit_id for failure in summary.failures] == ["000003"]
    # Others that were there need not wait for it.
    assert {"000003-0", "000003-0-failed"} <= store.claims()
    assert store.processes() == {}

    proxy.restart_counting(lambda request: None)
    summary = run_job(config, pairs, store.location, join=True, quiet=True)
    assert (summary.exit_code, summary.num_rows_scored, summary.num_rows_before) == (0, 8, 52)
    assert store.listing().success is not None and store.claims() == set()


def test_a_shared_job_goes_on_where_no_claim_can_be_written(
    proxy: FaultyProxy, bucket: str, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    proxy.restart_counting(always("PUT", "_rgpt/claims/", Fault.DENY))
    config = fake_config(tiny_tokenizer, *UNITS)
    pairs = [str(write_pairs(tmp_path / "pairs"))]
    summary = run_job(config, pairs, f"s3://{bucket}/out", join=True, quiet=True)
    assert (summary.exit_code, summary.num_rows_scored) == (0, 60)
