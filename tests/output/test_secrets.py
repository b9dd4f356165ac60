"""Credentials stay where they are: no file and no message of any run repeats them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.cli import main
from tests.commands.start import WITHOUT_TORCH, rgpt_batch, run
from tests.e2e.jobs import Job, write_job
from tests.servers.faulty_proxy import Fault, FaultyProxy, always
from tests.servers.s3 import SETTINGS

CANARIES = [
    *(SETTINGS[f"AWS_{n}"] for n in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")),
    "AKIAINTHEURI",
    "secret/of/the/uri",
]
IN_THE_URI = "s3://AKIAINTHEURI:secret/of/the/uri@"


@pytest.fixture
def job(tmp_path: Path, tiny_tokenizer: Path, bucket: str, s3: Any) -> Job:
    found = write_job(tmp_path / "job", tiny_tokenizer, units={"max_rows": 16})
    for shard in found.pairs.iterdir():
        s3.upload_file(str(shard), bucket, f"in/{shard.name}")
    return found


def _run(*arguments: str | Path) -> tuple[int, str]:
    done = run(rgpt_batch(*arguments), environment={"PYTHONPATH": WITHOUT_TORCH})
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def _assert_no_canary(text: str) -> None:
    assert [canary for canary in CANARIES if canary in text] == []


def _everything_written(s3: Any, bucket: str) -> str:
    found = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    contents = [s3.get_object(Bucket=bucket, Key=meta["Key"])["Body"].read() for meta in found]
    return "\n".join(content.decode("latin-1") for content in contents)


def test_complete_run_and_what_reads_it_repeat_no_credentials(
    job: Job, bucket: str, s3: Any, tmp_path: Path
) -> None:
    output = f"s3://{bucket}/out"
    arguments = ("score", "-c", job.config, "-i", f"s3://{bucket}/in", "--output", output)
    commands: list[tuple[str | Path, ...]] = [
        arguments,
        arguments,
        (*arguments, "-o", "protocol.max_length=50"),
        ("status", output),
        ("status", output, "--json"),
        ("verify", output, "--sample", "3"),
        ("rank", output, "--output", tmp_path / "run.trec"),
    ]
    said = [_run(*command) for command in commands]
    assert [code for code, _ in said] == [0, 0, 2, 0, 0, 0, 0], said
    written = _everything_written(s3, bucket)
    assert "fingerprint" in written and "PAR1" in written
    _assert_no_canary("\n".join(text for _, text in said) + written)


@pytest.mark.parametrize("fault", [Fault.DENY, Fault.ERROR_500])
@pytest.mark.parametrize("part", ["/in/", "/plan-", "/part-"])
def test_failing_run_repeats_no_credentials(
    proxy: FaultyProxy, job: Job, bucket: str, s3: Any, fault: Fault, part: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.choose = always("GET" if part == "/in/" else "PUT", part, fault)
    code, text = _run(
        *("score", "-c", job.config, "-i", f"s3://{bucket}/in/*.parquet"),
        *("--output", f"s3://{bucket}/out"),
    )
    assert proxy.injected[fault] > 0
    assert code == (3 if part == "/part-" else 1), text
    assert "s3://" in text
    _assert_no_canary(text + _everything_written(s3, bucket))


def test_credentials_in_a_uri_are_refused_and_not_repeated(
    job: Job, bucket: str, s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("q0 0 d0 1\n")
    bad, good = f"{IN_THE_URI}{bucket}/out", f"s3://{bucket}/out"
    config = ("-c", job.config)
    commands: list[tuple[str | Path, ...]] = [
        ("score", *config, "-i", f"{IN_THE_URI}{bucket}/in", "--output", good),
        ("score", *config, "-i", f"s3://{bucket}/in", "--output", bad),
        ("plan", *config, "-i", f"{IN_THE_URI}{bucket}/in", "--output", good),
        ("status", bad),
        ("verify", bad),
        ("rank", bad, "--output", tmp_path / "run.trec"),
        ("rank", good, "--output", f"{IN_THE_URI}{bucket}/run.trec"),
        ("evaluate", bad, "--qrels", qrels),
        ("evaluate", good, "--qrels", bad),
        ("compare", bad, good),
        ("score", "-c", bad, "-i", good, "--output", good),
        ("score", *config, "-i", good, "--output", good, "-o", bad),
        ("score", *config, "-i", good, "--output", good, "--executor", bad),
    ]
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in command])
        said = capsys.readouterr()
        text = said.out + said.err
        assert ended.value.code == 2, (command, text)
        assert "***" in text, (command, text)
        _assert_no_canary(text)
    assert "out/" not in str(s3.list_objects_v2(Bucket=bucket))
