"""Records that another version has written are told from missing ones, and end no command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rgpt_batch.checks.verify import verify_output
from rgpt_batch.cli import cli
from rgpt_batch.errors import ConfigError, RgptBatchError
from rgpt_batch.job.run_job import retry_failed
from rgpt_batch.output import open_store
from rgpt_batch.records import UnitFailure
from tests.jobs import Score

WritePairs = Callable[..., Path]
Record = dict[str, Any]
UNKNOWN = {"written_by": {"version": "9.0"}}


@pytest.fixture
def output(score_with_fake: Score, write_pairs: WritePairs) -> Path:
    """A job of three units, of which one is on record as failed."""
    folder = score_with_fake(write_pairs(30), overrides=("units.max_rows=10",)).folder
    (folder / "_SUCCESS").unlink()
    (folder / "part-000001.parquet").unlink()
    store = open_store(str(folder))
    store.add_failure(UnitFailure(unit_id="000001", num_rows=10, num_attempts=3, cause="gone"))
    return folder


def _with_unknown_keys(record: Any) -> Any:
    if isinstance(record, list):
        return [_with_unknown_keys(value) for value in record]
    if not isinstance(record, dict):
        return record
    known = {key: _with_unknown_keys(value) for key, value in record.items() if key != "identity"}
    return record | known | UNKNOWN


def _of_other_types(record: Record) -> Record:
    return {key: [value] if isinstance(value, str) else "?" for key, value in record.items()}


def _with_other_keys(record: Record) -> Record:
    return {f"new_{key}": value for key, value in record.items()}


@pytest.mark.parametrize("change", [_with_unknown_keys, _of_other_types, _with_other_keys])
@pytest.mark.parametrize("pattern", ["_rgpt/runs/*", "_rgpt/failed/*", "_rgpt/status.json", "*"])
def test_no_command_ends_with_a_traceback(
    output: Path, tmp_path: Path, pattern: str, change: Callable[[Record], Record]
) -> None:
    paths = [*output.rglob("*.json")] if pattern == "*" else [*output.glob(pattern)]
    assert paths
    for path in paths:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    pairs = str(tmp_path / "pairs.parquet")
    job = json.loads(max((output / "_rgpt" / "runs").iterdir()).read_text())
    name = job.get("config", job.get("new_config"))
    model = name["model"]["name"] if isinstance(name, dict) else "unknown"
    for command in (
        ["status", str(output)],
        ["status", str(output), "--json"],
        ["verify", str(output), "--sample", "1"],
        ["report", str(output), "--to", str(tmp_path / "report.html")],
        ["plan", "-i", pairs, "--output", str(output), "--model", model],
        ["retry-failed", str(output), "--quiet"],
    ):
        result = CliRunner().invoke(cli, command, standalone_mode=False)
        error = result.exception
        assert error is None or isinstance(error, RgptBatchError), (command, repr(error))


def test_keys_that_a_newer_version_adds_do_no_harm(output: Path) -> None:
    for pattern in ("_rgpt/failed/*", "_rgpt/status.json", "_rgpt/plan-*"):
        for path in output.glob(pattern):
            path.write_text(json.dumps(_with_unknown_keys(json.loads(path.read_text()))))
    for path in output.glob("part-*.parquet"):
        _change_footer(path, lambda footer: footer | UNKNOWN)
    summary = retry_failed(str(output), quiet=True)
    assert (summary.exit_code, summary.num_rows_scored) == (0, 10)
    success = json.loads((output / "_SUCCESS").read_text())
    files = {unit_id: file | UNKNOWN for unit_id, file in success["files"].items()}
    (output / "_SUCCESS").write_text(json.dumps(success | UNKNOWN | {"files": files}))
    assert verify_output(output).problems == ()


def test_an_option_that_this_version_does_not_know_is_named(output: Path) -> None:
    (path,) = (output / "_rgpt" / "runs").iterdir()
    record = json.loads(path.read_text())
    record["config"]["engine"]["speculation"] = True
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"of another version.*: engine\.speculation: "):
        retry_failed(str(output), quiet=True)


def test_the_configuration_is_that_of_the_last_run_of_the_job_itself(output: Path) -> None:
    (path,) = (output / "_rgpt" / "runs").iterdir()
    record = json.loads(path.read_text())
    # Left behind by an earlier job, and by a run of this one under a clock that was set back.
    other = record | {"fingerprint": "0" * 16, "config": {}}
    early = record | {"config": record["config"] | {"units": {"max_rows": 0}}}
    (path.parent / "run-999999-00000000.json").write_text(json.dumps(other))
    (path.parent / "20991231T235959999999-00000000.json").write_text(json.dumps(early))
    summary = retry_failed(str(output), quiet=True)
    assert (summary.exit_code, summary.num_rows_scored) == (0, 10)


def test_a_footer_of_another_version_is_told_from_a_missing_one(output: Path) -> None:
    part = output / "part-000002.parquet"
    _change_footer(part, _with_other_keys)
    message = f"{part}: another version of rgpt-batch has written its footer"
    problems = verify_output(output).problems
    (problem,) = (problem for problem in problems if str(part) in problem)
    assert problem.startswith(message)
    assert "Delete" not in problem
    summary = retry_failed(str(output), quiet=True)
    assert summary.exit_code == 3
    (problem,) = summary.problems
    assert problem.startswith(message)
    assert "Delete" not in problem


def _change_footer(part: Path, change: Callable[[Record], Record]) -> None:
    table = pq.read_table(part)
    metadata = table.schema.metadata or {}
    footer = change(json.loads(metadata[b"rgpt_batch"]))
    changed = table.replace_schema_metadata(
        {**metadata, b"rgpt_batch": json.dumps(footer).encode()}
    )
    pq.write_table(changed, part, write_page_checksum=True)
