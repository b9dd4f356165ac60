"""Tables in an object store, outputs there, and what is said of credentials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rgpt_batch.commands.publishing import publish
from rgpt_batch.errors import CommitError, ConfigError, StorageError
from tests.publishing.outputs import FINGERPRINT, rows, write_output
from tests.publishing.tables import KINDS, Target
from tests.servers.faulty_proxy import Fault, FaultyProxy, always
from tests.servers.s3 import SETTINGS

CANARIES = [value for name, value in SETTINGS.items() if "KEY" in name or "TOKEN" in name]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> Target:
    return Target(kind=request.param, folder=tmp_path, uri=f"s3://{bucket}/lake")


def test_an_output_on_s3_is_published_to_s3(target: Target, bucket: str) -> None:
    output = f"s3://{bucket}/scored"
    write_output(output, rows(0, 500), rows(500, 300))
    assert target.publish(output, date="2026-11-27").table.change == "published"
    assert target.counts() == {FINGERPRINT: 800}
    assert set(target.rows("doc_id, fingerprint, date")["date"].to_pylist()) == {"2026-11-27"}
    assert target.publish(output, date="2026-11-27").table.change == "unchanged"


def test_a_store_that_fails_every_first_request_is_asked_again(
    proxy: FaultyProxy, target: Target, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 100))
    target.prepare()
    faults = (Fault.ERROR_500, Fault.SLOW_DOWN)
    proxy.restart_counting(lambda request: None if request.number else faults[request.order % 2])
    target.publish(output)
    assert proxy.injected.total() > 3
    proxy.restart_counting(lambda request: None)
    assert target.counts() == {FINGERPRINT: 100}


def test_what_a_killed_attempt_has_left_is_no_part_of_a_folder(
    bucket: str, s3: Any, tmp_path: Path
) -> None:
    """Another target size makes other files: the old ones must go."""
    target = Target(kind="parquet", folder=tmp_path, uri=f"s3://{bucket}/lake")
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 100))
    left = f"lake/table/fingerprint={FINGERPRINT}/part-00007.parquet"
    s3.put_object(Bucket=bucket, Key=left, Body=b"PAR1 half")
    target.publish(output)
    assert target.counts() == {FINGERPRINT: 100}


def test_a_folder_whose_files_differ_from_its_success_is_written_again(
    bucket: str, s3: Any, tmp_path: Path
) -> None:
    target = Target(kind="parquet", folder=tmp_path, uri=f"s3://{bucket}/lake")
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 100))
    target.publish(output)
    key = f"lake/table/fingerprint={FINGERPRINT}/part-00000.parquet"
    s3.delete_object(Bucket=bucket, Key=key)
    assert target.publish(output).table.change == "published"
    assert target.counts() == {FINGERPRINT: 100}


def test_a_denied_request_is_told_without_credentials(
    proxy: FaultyProxy, target: Target, tmp_path: Path
) -> None:
    """The store's answer quotes what the client has signed."""
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 100))
    target.prepare()
    proxy.restart_counting(always("PUT", "", Fault.DENY))
    with pytest.raises((CommitError, StorageError)) as failure:
        target.publish(output)
    assert failure.value.__context__ is None or failure.value.__suppress_context__
    text = str(failure.value)
    assert [canary for canary in CANARIES if canary in text] == []
    assert "Credential=" not in text and "\n" not in text
    assert re.search("SignatureDoesNotMatch|SIGNATURE_DOES_NOT_MATCH", text), text


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(publish, list(map(str, arguments)), standalone_mode=False)


def test_a_catalog_that_cannot_be_opened_is_told_without_its_settings(tmp_path: Path) -> None:
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 10))
    for settings in (
        {"type": "no-such-type", "uri": "sqlite:///secret-place", "token": "canary-token"},
        {"uri": "postgresql+psycopg2://someone:canary-password@127.0.0.1:9/db", "type": "sql"},
        {"uri": "http://127.0.0.1:9/catalog", "token": "canary-token", "type": "rest"},
    ):
        options = [f"--catalog-property={name}={value}" for name, value in settings.items()]
        result = _run(output, "--to", "iceberg:lake.scores.table", *options)
        assert isinstance(result.exception, CommitError), result.output
        text = f"{result.exception} {result.output}"
        assert "lake.scores.table" in text
        assert "canary" not in text and "secret-place" not in text, text


def test_a_uri_with_credentials_is_refused_and_not_repeated(tmp_path: Path) -> None:
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 10))
    for kind in ("delta", "parquet"):
        result = _run(output, "--to", f"{kind}:s3://AKIACANARY:canary/secret@bucket/table")
        assert isinstance(result.exception, ConfigError)
        assert "canary" not in str(result.exception).lower()


def test_a_partition_that_is_no_pair_is_told_without_its_value(tmp_path: Path) -> None:
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 10))
    result = _run(output, "--to", "delta:x", "--partition", "date")
    assert "expected NAME=VALUE" in str(result.exception)
    for partition in ("date=a/b", "da te=1", "date=..", "score=1", "fingerprint=1"):
        result = _run(output, "--to", f"delta:{tmp_path}/t", "--partition", partition)
        assert isinstance(result.exception, ConfigError), partition
