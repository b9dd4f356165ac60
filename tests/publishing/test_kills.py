"""A publication that is killed leaves the table as before or as after; the next one ends it.

The processes are real, and so are the kills. Locally the table's folders are watched for the
moment; on S3 the proxy kills before or after it has forwarded a request. Together some 40 s.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import holds
from tests.publishing.commands import start_publishing
from tests.publishing.outputs import FINGERPRINT, rows, write_output
from tests.publishing.tables import KINDS, Target
from tests.servers.faulty_proxy import Fault, FaultyProxy, Request

OTHER = "fedcba9876543210"
NUM_ROWS = 60_000
BEFORE = {OTHER: 50}
AFTER = {OTHER: 50, FINGERPRINT: NUM_ROWS}

# Where a file appears that begins to tell, or tells, of the new rows.
COMMITS = {"delta": "*/_delta_log/*1.json", "iceberg": "**/*.metadata.json", "parquet": "*/f*=0*"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("output") / "scored"
    write_output(str(folder), *(rows(i * 10_000, 10_000) for i in range(NUM_ROWS // 10_000)))
    return str(folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("other") / "scored"
    write_output(str(folder), rows(0, 50), fingerprint=OTHER)
    return str(folder)


def _check(target: Target, output: str, before: dict[str, int]) -> dict[str, int]:
    """The table is whole now, and complete after another try; returns what was found."""
    found = target.counts()
    after = {**before, FINGERPRINT: NUM_ROWS}
    assert found in (before, after)
    assert target.publish(output).table.change == ("published" if found == before else "unchanged")
    assert target.counts() == after
    assert target.publish(output).table.change == "unchanged"
    return found


def _kill_when(target: Target, output: str, is_time: Callable[[], bool]) -> None:
    process = start_publishing(target, output)
    deadline = time.monotonic() + 300
    while process.is_alive() and not holds(is_time):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.join()


def _files(folder: Path, pattern: str) -> set[Path]:
    return set(folder.glob(pattern))


@pytest.mark.parametrize("moment", ["a data file", "the commit"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_a_moment_the_table_is_as_before_or_as_after(
    kind: str, moment: str, output: str, other: str, tmp_path: Path
) -> None:
    target = Target(kind=kind, folder=tmp_path)
    target.publish(other)
    pattern = "**/*.parquet" if moment == "a data file" else COMMITS[kind]
    there = _files(tmp_path, pattern)
    _kill_when(target, output, lambda: bool(_files(tmp_path, pattern) - there))
    _check(target, output, BEFORE)
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert left == []


@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_it_makes_the_table_it_is_made_by_the_next_try(
    kind: str, output: str, tmp_path: Path
) -> None:
    target = Target(kind=kind, folder=tmp_path)
    _kill_when(target, output, lambda: bool(_files(tmp_path, "**/*.parquet")))
    _check(target, output, {})


def _kill_at(number: int, *, forwarded: bool, kill: Callable[[], None]) -> Any:
    """Kill when the proxy gets the n-th request that writes, before or after it is carried out."""
    seen = 0

    def choose(request: Request) -> Fault | None:
        nonlocal seen
        if request.method in ("GET", "HEAD"):
            return None
        seen += 1
        if seen < number:
            return None
        kill()
        return Fault.LOSE_REPLY if seen == number and forwarded else Fault.DROP_REQUEST

    return choose


def _kill_on_s3(
    proxy: FaultyProxy, target: Target, output: str, number: int, *, forwarded: bool
) -> bool:
    """Kill at a request; returns whether there were so many."""
    killed: list[bool] = []
    started: queue.SimpleQueue[ForkServerProcess] = queue.SimpleQueue()

    def kill() -> None:
        # Its first request may come before this process knows that it has started.
        if not killed:
            killed.append(True)
            started.get(timeout=60).kill()

    proxy.restart_counting(_kill_at(number, forwarded=forwarded, kill=kill))
    process = start_publishing(target, output)
    started.put(process)
    process.join(300)
    assert not process.is_alive()
    proxy.restart_counting(lambda request: None)
    return bool(killed)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_its_last_request_on_s3_the_table_is_as_before_or_as_after(
    kind: str, output: str, other: str, tmp_path: Path, proxy: FaultyProxy, bucket: str
) -> None:
    """The last request but for Iceberg's, whose catalog commits behind it, is the commit."""
    target = Target(kind=kind, folder=tmp_path, uri=f"s3://{bucket}/lake")
    target.publish(other)
    proxy.restart_counting(lambda request: None)
    target.publish(output)
    writes = [request for request in proxy.requests if request.method not in ("GET", "HEAD")]
    found = []
    for name, forwarded in (("dropped", False), ("carried-out", True)):
        table = Target(kind=kind, folder=tmp_path, uri=target.uri, name=name)
        table.publish(other)
        assert _kill_on_s3(proxy, table, output, len(writes), forwarded=forwarded)
        found.append(_check(table, output, BEFORE))
    assert found == [BEFORE, BEFORE if kind == "iceberg" else AFTER]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_every_request_on_s3_the_table_is_as_before_or_as_after(
    kind: str, output: str, other: str, tmp_path: Path, proxy: FaultyProxy, bucket: str
) -> None:
    number = 1
    for forwarded in (False, True):
        for number in range(1, 100):
            table = Target(
                kind=kind, folder=tmp_path, uri=f"s3://{bucket}/lake", name=f"t{forwarded}{number}"
            )
            table.publish(other)
            if not _kill_on_s3(proxy, table, output, number, forwarded=forwarded):
                break
            _check(table, output, BEFORE)
    assert number > 2


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments_the_table_is_as_before_or_as_after(
    kind: str, output: str, other: str, tmp_path: Path
) -> None:
    """A hundred tables; how often the kill came before and after the commit is printed."""
    started = time.monotonic()
    first = Target(kind=kind, folder=tmp_path, name="first")
    _kill_when(first, output, lambda: False)
    longest = 1.5 * (time.monotonic() - started)
    found = []
    for number in range(100):
        target = Target(kind=kind, folder=tmp_path, name=f"table{number}")
        target.publish(other)
        end = time.monotonic() + random.Random(number).uniform(0, longest)
        _kill_when(target, output, lambda end=end: time.monotonic() > end)  # type: ignore[misc]
        found.append(_check(target, output, BEFORE))
    assert BEFORE in found and AFTER in found
    print(f"{kind}: {found.count(BEFORE)} before, {found.count(AFTER)} after the commit")
