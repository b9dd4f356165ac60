"""Whole jobs on S3 under faults and kills. Five hundred: python -m tests.output.campaign."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from rgpt_batch.checks.verify import verify_output
from rgpt_batch.errors import CommitError, StorageError
from rgpt_batch.output import open_store
from rgpt_batch.output.score_file import read_footer
from tests.output.campaign import (
    NUM_UNITS,
    TIMEOUT,
    Findings,
    Scene,
    look,
    read_objects,
    run_campaign,
    set_scene,
)
from tests.output.commands import start_job
from tests.output.tables import parquet
from tests.servers.faulty_proxy import Fault, FaultyProxy, Request, first, seeded


@pytest.fixture
def scene(tiny_tokenizer: Path, tmp_path: Path, bucket: str, s3: Any, proxy: FaultyProxy) -> Scene:
    return set_scene(tiny_tokenizer, tmp_path, bucket, s3, proxy)


def _start(scene: Scene, log: Path) -> Any:
    return start_job(scene.config, [scene.input], f"s3://{scene.bucket}/out", str(log))


def test_jobs_under_faults_and_kills_end_with_every_row_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", TIMEOUT)
    # Of these seeds six drivers are killed, and some 45 faults met, three of which hang.
    found = run_campaign(scene, (3, 4, 9), rate=0.1)
    assert found.problems == {}
    assert found.num_jobs == 3
    assert found.num_kills >= 2
    assert found.injected.total() >= 20


# A control: what a campaign says of writers that stream to the final name, with the same faults.


def _commit_carefully(scene: Scene, name: str, table: pa.Table) -> None:
    attempt = random.randbytes(8).hex()
    open_store(f"s3://{scene.bucket}/out").commit(name[5:11], attempt, parquet(table))


def _commit_naively(scene: Scene, name: str, table: pa.Table) -> None:
    """What most code does: open the final name, write row by row, close."""
    files = pa.fs.S3FileSystem(
        endpoint_override=scene.proxy.url,
        region="us-east-1",
        request_timeout=5,
        retry_strategy=pa.fs.AwsStandardS3RetryStrategy(max_attempts=2),
    )
    with (
        files.open_output_stream(f"{scene.bucket}/out/{name}") as stream,
        pq.ParquetWriter(stream, table.schema) as writer,
    ):
        for row in range(table.num_rows):
            if random.random() < 0.1:
                raise CommitError("the writer's process has a problem of its own")
            writer.write_table(table.slice(row, 1))


def _write_units(scene: Scene, commit: Callable[[Scene, str, pa.Table], None]) -> Findings:
    """Write what is missing until nothing is, as a job does."""
    random.seed(7)
    findings = Findings()
    store = open_store(f"s3://{scene.bucket}/out")
    scene.proxy.restart_counting(seeded(7, 0.2, (Fault.LOSE_REPLY, Fault.ERROR_500, Fault.DELAY)))
    for _ in range(20):
        done = store.committed()
        missing = [unit for unit in range(NUM_UNITS) if f"{unit:06d}" not in done]
        if not missing:
            break
        for unit in missing:
            try:
                commit(scene, f"part-{unit:06d}.parquet", scene.expected.slice(unit * 4, 4))
            except (CommitError, StorageError, OSError):
                continue
    look(scene, "out", True, findings)
    return findings


def test_campaign_notices_the_losses_of_a_writer_that_streams_to_the_final_name(
    scene: Scene,
) -> None:
    naive = _write_units(scene, _commit_naively)
    assert naive.unreadable + naive.lost > 0
    scene.s3.delete_objects(
        Bucket=scene.bucket,
        Delete={"Objects": [{"Key": f"out/part-{unit:06d}.parquet"} for unit in range(NUM_UNITS)]},
    )
    careful = _write_units(scene, _commit_carefully)
    assert careful.unreadable + careful.lost + careful.doubled + careful.wrong_rows == 0


# Drivers that meet, die, or are watched


def test_two_drivers_on_one_output_give_each_row_once(scene: Scene, tmp_path: Path) -> None:
    started = threading.Barrier(2, timeout=60)
    reading: set[int] = set()

    def choose(request: Request) -> Fault | None:
        # Both have made their plan before either commits.
        if request.method == "PUT" and "/plan-" in request.path:
            reading.add(request.number)
            started.wait()
        return None

    scene.proxy.restart_counting(choose)
    drivers = [_start(scene, tmp_path / f"log-{number}") for number in range(2)]
    for driver in drivers:
        driver.join(120)
    assert [driver.exitcode for driver in drivers] == [0, 0]
    assert reading == {0, 1}
    findings = Findings()
    look(scene, "out", True, findings)
    assert findings.problems == {}


def test_driver_killed_in_the_middle_of_an_upload_is_resumed(scene: Scene, tmp_path: Path) -> None:
    drivers: list[Any] = []
    names: list[str] = []

    def kill_at_the_third_part(request: Request) -> Fault | None:
        if request.method == "PUT" and "/part-" in request.path:
            names.append(request.path)
            if len(names) == 3:
                drivers[0].kill()
                return Fault.CUT_UPLOAD
        return None

    scene.proxy.restart_counting(kill_at_the_third_part)
    drivers.append(_start(scene, tmp_path / "log"))
    drivers[0].join(120)
    assert drivers[0].exitcode == -9
    assert scene.proxy.upload_was_cut.is_set()
    store = open_store(f"s3://{scene.bucket}/out")
    assert names[2][-14:-8] not in store.committed()
    assert not store.listing().is_declared
    before = {unit: read_footer(file.path)[0].attempt for unit, file in store.committed().items()}
    assert before

    scene.proxy.restart_counting(lambda request: None)
    again = _start(scene, tmp_path / "log")
    again.join(120)
    assert again.exitcode == 0, (tmp_path / "log").read_text()
    findings = Findings()
    look(scene, "out", True, findings)
    assert findings.problems == {}
    after = {unit: read_footer(file.path)[0].attempt for unit, file in store.committed().items()}
    assert before.items() < after.items()
    assert verify_output(store.location, num_rescored=5).problems == ()


def test_success_goes_before_a_missing_unit_is_written_again(scene: Scene, tmp_path: Path) -> None:
    _finish(scene, tmp_path)
    scene.s3.delete_object(Bucket=scene.bucket, Key="out/part-000002.parquet")
    seen: list[bool] = []

    def look_for_success(request: Request) -> Fault | None:
        if request.method == "PUT":
            seen.append("_SUCCESS" in read_objects(scene, "out"))
        return None

    scene.proxy.restart_counting(look_for_success)
    _finish(scene, tmp_path)
    assert len(seen) > 3
    assert not any(seen[:-2]), "_SUCCESS comes back before the last two records are written"
    findings = Findings()
    look(scene, "out", True, findings)
    assert findings.problems == {}


def test_complete_output_is_listed_and_not_read(scene: Scene, tmp_path: Path) -> None:
    _finish(scene, tmp_path)
    read: list[str] = []

    def note_parts(request: Request) -> Fault | None:
        if "/part-" in request.path or (request.method != "GET" and "/_SUCCESS" in request.path):
            read.append(request.path)
        return None

    scene.proxy.restart_counting(note_parts)
    _finish(scene, tmp_path)
    assert read == []


def _finish(scene: Scene, folder: Path) -> None:
    driver = _start(scene, folder / "log")
    driver.join(120)
    assert driver.exitcode == 0, (folder / "log").read_text()


def test_reader_that_lists_while_a_job_writes_sees_whole_files_only(
    scene: Scene, tmp_path: Path
) -> None:
    num_listings, num_read = 0, 0
    listed = threading.Semaphore(0)
    faults = seeded(3, 0.15)

    def let_the_reader_list(request: Request) -> Fault | None:
        if request.method == "PUT" and "/part-" in request.path:
            while listed.acquire(blocking=False):
                pass
            listed.acquire(timeout=60)
        return faults(request)

    scene.proxy.restart_counting(let_the_reader_list)
    driver = _start(scene, tmp_path / "log")
    while driver.is_alive():
        findings = Findings()
        look(scene, "out", False, findings)
        assert findings.problems == {}
        driver.join(0.02)
        store = open_store(f"s3://{scene.bucket}/out")
        for name in _listed(scene):
            content = scene.s3.get_object(Bucket=scene.bucket, Key=name)["Body"].read()
            assert pq.read_metadata(io.BytesIO(content)).num_rows == 4
            num_read += 1
        num_listings += 1
        listed.release()
    assert store.location
    assert num_listings > 5
    assert num_read > 0
    assert driver.exitcode in (0, 1, 3), (tmp_path / "log").read_text()


def _listed(scene: Scene) -> list[str]:
    found = scene.s3.list_objects_v2(Bucket=scene.bucket, Prefix="out/part-")
    return [meta["Key"] for meta in found.get("Contents", [])]


def test_input_that_changes_while_the_job_runs_stops_it_without_a_wrong_row(
    scene: Scene, tmp_path: Path
) -> None:
    replaced = threading.Event()

    def replace_after_the_plan(request: Request) -> Fault | None:
        if request.method == "PUT" and "/plan-" in request.path and not replaced.is_set():
            pairs = scene.s3.get_object(Bucket=scene.bucket, Key="in/pairs.parquet")["Body"].read()
            table = pq.read_table(io.BytesIO(pairs))
            other = table.set_column(1, "doc_id", pa.array([f"x{i}" for i in range(24)]))
            stream = io.BytesIO()
            pq.write_table(other, stream, row_group_size=8)
            scene.s3.put_object(Bucket=scene.bucket, Key="in/pairs.parquet", Body=stream.getvalue())
            replaced.set()
        return None

    scene.proxy.restart_counting(replace_after_the_plan)
    driver = _start(scene, tmp_path / "log")
    driver.join(120)
    assert replaced.is_set()
    assert driver.exitcode == 3
    store = open_store(f"s3://{scene.bucket}/out")
    assert store.committed() == {}
    causes = {failure.cause for failure in store.read_failures()}
    assert len(causes) == 1
    assert "in/pairs.parquet: the file changed after the job was planned" in causes.pop()


def test_no_success_is_reported_where_it_could_not_be_written(scene: Scene, tmp_path: Path) -> None:
    scene.proxy.restart_counting(first("PUT", "/_SUCCESS", *[Fault.ERROR_500] * 5))
    driver = _start(scene, tmp_path / "log")
    driver.join(120)
    assert driver.exitcode == 1
    assert "_SUCCESS: the store fails or does not answer" in (tmp_path / "log").read_text()
    store = open_store(f"s3://{scene.bucket}/out")
    assert not store.listing().is_declared
    status = store.read_status()
    assert status is not None and status["state"] == "failed"
    again = _start(scene, tmp_path / "log")
    again.join(120)
    assert again.exitcode == 0
    assert store.listing().success is not None
