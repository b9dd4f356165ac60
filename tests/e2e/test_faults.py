"""Things that break while a job runs: workers, machines, disks, input. What they cost is little."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from tests.commands.hold import HELD
from tests.commands.start import WITHOUT_TORCH
from tests.e2e.jobs import Finish, Job, Start, write_job
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import Process, has_parts, held_after, parts, rgpt_batch

JUMPING_CLOCK = str(Path(__file__).parent / "jumping_clock")
RAY = ("--executor", "ray", "-o", "executor.num_workers=2")


@pytest.fixture
def own_job(tmp_path: Path, tiny_tokenizer: Path) -> Job:
    """A job whose input the test may change."""
    return write_job(tmp_path / "job", tiny_tokenizer)


def actors(process: Process) -> list[int]:
    """Process ids of the workers of a command that has started its own Ray."""
    return [pid for pid, name in process.relatives().items() if name.startswith("ray::WorkerActor")]


def wait_for_actors(process: Process, number: int) -> list[int]:
    """Return them as one look has found them: the next may find fewer."""
    found: list[int] = []

    def there_are() -> bool:
        found[:] = actors(process)
        return len(found) >= number

    process.wait_until(there_are)
    return found


# Workers


@pytest.mark.ray
def test_workers_that_sleep_too_long_or_are_killed_are_replaced_and_do_no_harm_when_they_wake(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    options = ("-o", "engine.fake_seconds_per_pair=0.2", "-o", "executor.unit_timeout_seconds=5")
    process = start([*job.score(output, *RAY), *options])
    process.wait_until(lambda: "scoring on 2 workers" in process.output)
    process.wait_until(partial(has_parts, output, 3))
    sleeper = wait_for_actors(process, 2)[0]
    said_before = len(process.output)
    os.kill(sleeper, signal.SIGSTOP)
    process.wait_until(lambda: "scoring on 1 of 2 workers" in process.output[said_before:])
    with contextlib.suppress(ProcessLookupError):
        os.kill(sleeper, signal.SIGCONT)
    # Of those that are left, whichever comes first, three times; one may just have been ended.
    num_killed = 0
    for _ in range(3):
        num_parts = len(parts(output))
        assert num_parts < job.num_units - 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(wait_for_actors(process, 1)[0], signal.SIGKILL)
            num_killed += 1
        process.wait_until(partial(has_parts, output, num_parts + 1))
    assert num_killed >= 2
    assert process.wait() == 0, process.output
    assert row_differences(clean_rows, read_output(output)) == []
    assert (output / "_SUCCESS").exists()
    process.wait_until_all_gone()


@pytest.mark.ray
def test_a_job_goes_on_when_a_machine_is_lost(
    job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    hold = tmp_path / "hold"
    hold.touch()
    # For the workers, which the nodes start.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((HELD, WITHOUT_TORCH)))
    monkeypatch.setenv("HOLD_AT", held_after(4))
    monkeypatch.setenv("HOLD_FILE", str(hold))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        output = tmp_path / "scored"
        process = start(job.score(output, *RAY), environment={"RAY_ADDRESS": cluster.address})
        process.wait_until(lambda: "scoring on 2 workers" in process.output)
        process.wait_until(lambda: len(parts(output)) >= 4)
        cluster.remove_node(nodes[0], allow_graceful=False)
        hold.unlink()
        assert process.wait() == 0, process.output
    finally:
        cluster.shutdown()
    assert row_differences(clean_rows, read_output(output)) == []


# The driver


def test_a_driver_that_sleeps_while_another_finishes_does_no_harm_when_it_wakes(
    job: Job, start: Start, finish: Finish, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    sleeper = start(job.score(output), held_at=held_after(2))
    sleeper.wait_until(lambda: len(parts(output)) >= 2)
    sleeper.send(signal.SIGSTOP)
    code, said = finish(job.score(output))
    assert code == 0, said
    before = identities(output)
    sleeper.send(signal.SIGCONT)
    sleeper.let_go()
    assert sleeper.wait() == 0, sleeper.output
    assert identities(output) == before
    assert row_differences(clean_rows, read_output(output)) == []
    code, said = finish(rgpt_batch("verify", output))
    assert code == 0, said


def test_an_engine_that_hangs_ends_the_job_of_the_local_executor(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    options = ("-o", "engine.fake_seconds_per_pair=3600", "-o", "executor.unit_timeout_seconds=2")
    code, said = finish(job.score(output, *options))
    assert code == 1
    assert "the engine hangs: none of the units in flight" in said
    assert "within 2 s, see executor.unit_timeout_seconds" in said
    assert "run the same command again" in said
    code, _ = finish(job.score(output))
    assert code == 0


# The clock


def test_a_clock_that_jumps_by_a_year_changes_nothing(
    job: Job, start: Start, finish: Finish, clean_rows: pa.Table, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    clock = {
        "environment": {"PYTHONPATH": JUMPING_CLOCK, "JUMPING_CLOCK_SECONDS": str(365 * 86_400)},
        "without_torch": False,
    }
    process = start(job.score(output), held_at=held_after(3), **clock)
    process.wait_until(lambda: len(parts(output)) >= 3)
    process.kill_group()
    assert 3 <= len(parts(output)) < job.num_units
    code, said = finish(job.score(output), **clock)
    assert code == 0, said
    assert row_differences(clean_rows, read_output(output)) == []
    for command in (rgpt_batch("verify", output), rgpt_batch("status", output)):
        code, said = finish(command, **clock)
        assert code == 0, said


# Disks


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    """A file system of 512 KiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system here: {mounted.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _remount(folder: Path, mode: str, process: Process) -> None:
    """Make a file system readable alone (ro), or writable again (rw)."""
    # It is busy while a file is open for writing.
    while subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)]).returncode:
        assert process.is_running(), process.output


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder with a file system of its own."""
    folder = Path(tempfile.mkdtemp())
    try:
        with _mounted(folder):
            yield folder
    finally:
        folder.rmdir()


def test_a_full_disk_stops_the_job_and_space_lets_it_go_on(
    job: Job, start: Start, finish: Finish, clean_rows: pa.Table, small_disk: Path
) -> None:
    output = small_disk / "scored"
    ballast = small_disk / "ballast"
    process = start(job.score(output), held_at=held_after(2))
    process.wait_until(lambda: len(parts(output)) >= 2)
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1024))
    process.let_go()
    assert process.wait() in (1, 3), process.output
    assert "No space left on device" in process.output
    assert "Traceback" not in process.output
    assert not (output / "_SUCCESS").exists()
    committed = identities(output)
    assert 2 <= len(committed) < job.num_units

    ballast.unlink()
    code, said = finish(job.score(output))
    assert code == 0, said
    assert committed.items() <= identities(output).items()
    assert row_differences(clean_rows, read_output(output)) == []


def test_a_file_system_that_becomes_read_only_stops_the_job_and_it_goes_on_afterwards(
    job: Job, start: Start, finish: Finish, clean_rows: pa.Table, small_disk: Path
) -> None:
    output = small_disk / "scored"
    # The log is open as long as the job scores: it lies on another disk, so that this one is free.
    logs = output / "_rgpt" / "logs"
    logs.mkdir(parents=True)
    with _mounted(logs):
        process = start(job.score(output), held_at=held_after(2))
        process.wait_until(lambda: len(parts(output)) >= 2)
        _remount(small_disk, "ro", process)
        process.let_go()
        assert process.wait() in (1, 3), process.output
    assert "Read-only file system" in process.output
    assert "Traceback" not in process.output
    committed = identities(output)
    assert 2 <= len(committed) < job.num_units

    _remount(small_disk, "rw", process)
    code, said = finish(job.score(output))
    assert code == 0, said
    assert committed.items() <= identities(output).items()
    assert row_differences(clean_rows, read_output(output)) == []


def test_a_limit_on_file_sizes_is_an_error_and_publishes_nothing(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    limited = ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *job.score(output)]
    code, said = finish(limited)
    assert code == 1
    assert "File too large" in said
    assert parts(output) == []


# Input


def test_a_deleted_input_file_fails_its_units_and_comes_back(
    own_job: Job, start: Start, finish: Finish, tmp_path: Path
) -> None:
    output, shard = tmp_path / "scored", own_job.pairs / "pairs-1.parquet"
    process = start(own_job.score(output), held_at=held_after(1))
    process.wait_until(lambda: len(parts(output)) >= 1)
    shard.rename(tmp_path / "away")
    process.let_go()
    assert process.wait() == 3, process.output
    assert f"{shard}: cannot be opened" in process.output
    assert not (output / "_SUCCESS").exists()
    num_left = own_job.num_units - len(parts(output))
    assert num_left
    (tmp_path / "away").rename(shard)
    code, said = finish(own_job.score(output))
    assert code == 0, said
    assert f"{num_left * 4} in this run" in said


def test_bits_that_rot_while_the_job_runs_cost_their_rows_and_no_others(
    own_job: Job, start: Start, clean_rows: pa.Table, tmp_path: Path
) -> None:
    import pyarrow.parquet as pq

    output, shard = tmp_path / "scored", own_job.pairs / "pairs-1.parquet"
    table = pq.read_table(shard)
    pq.write_table(table, shard, row_group_size=16, write_page_checksum=True)
    chunk = pq.read_metadata(shard).row_group(2).column(3)
    status = shard.stat()
    process = start(own_job.score(output), held_at=held_after(1))
    process.wait_until(lambda: len(parts(output)) >= 1)
    with shard.open("r+b") as stream:
        # A disk changes no time stamps.
        position = chunk.data_page_offset + chunk.total_compressed_size // 2
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 4]))
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    process.let_go()
    assert process.wait() == 3, process.output
    rows = read_output(output).to_pylist()
    assert [row["rejection"] for row in rows[80:]] == ["UNREADABLE"] * 16
    scores = clean_rows["score"].to_pylist()
    assert [row["score"] for row in rows[:80]] == scores[:80]
    assert not (output / "_SUCCESS").exists()


def test_an_input_file_that_is_overwritten_while_it_is_read_is_noticed(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    from rgpt_batch.errors import ShardError
    from rgpt_batch.input.pairs import read_pairs
    from rgpt_batch.job.plan import plan_job
    from tests.e2e.jobs import write_shard
    from tests.jobs import fake_config

    shard = tmp_path / "pairs.parquet"
    write_shard(shard, range(96))
    _, manifest = plan_job(fake_config(tiny_tokenizer), [str(shard)], str(tmp_path / "scored"))
    batches = read_pairs(manifest.units[0], manifest.columns, source=False)
    next(batches)
    # In place, as `cp` does: the open file now holds other bytes.
    write_shard(tmp_path / "other.parquet", range(100, 196))
    shard.write_bytes((tmp_path / "other.parquet").read_bytes())
    with pytest.raises(ShardError, match="changed after the job was planned"):
        list(batches)
