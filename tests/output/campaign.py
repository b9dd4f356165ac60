"""Jobs on an object store under faults and kills, repeated until they are done, and what is there.

    python -m tests.output.campaign --runs 500      by hand; a few runs are part of the test suite

Every job is one command that is repeated, as a user would, until it exits with 0. Meanwhile
requests are lost, cut, doubled, delayed and refused, drivers are killed at a request of their own,
and some jobs have two drivers at once. After every command the server itself is asked what a reader
sees.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rgpt_batch import JobConfig
from tests.jobs import fake_config, score
from tests.output.commands import start_job
from tests.servers.faulty_proxy import Fault, FaultyProxy, Request, seeded

NUM_ROWS = 24
NUM_UNITS = 6
# Shorter than a request hangs.
TIMEOUT = "3s"
_MAX_COMMANDS = 12
_LAST_KILL = 6


@dataclass
class Findings:
    """What a campaign did and what it found.

    Attributes:
        unreadable: Objects under a final name that are no readable Parquet file.
        wrong_rows: Rows that are not those of an undisturbed run.
        false_successes: Exit codes of 0, or _SUCCESS, with a row missing.
    """

    num_jobs: int = 0
    num_commands: int = 0
    num_kills: int = 0
    num_failed_commands: int = 0
    injected: Counter[Fault] = field(default_factory=Counter)
    unfinished: int = 0
    lost: int = 0
    doubled: int = 0
    wrong_rows: int = 0
    unreadable: int = 0
    false_successes: int = 0

    @property
    def problems(self) -> dict[str, int]:
        names = ("unfinished", "lost", "doubled", "wrong_rows", "unreadable", "false_successes")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A job, its undisturbed output, and the server before which the proxy stands."""

    config: JobConfig
    input: str
    expected: pa.Table
    bucket: str
    s3: Any
    proxy: FaultyProxy


def set_scene(tokenizer: Path, folder: Path, bucket: str, s3: Any, proxy: FaultyProxy) -> Scene:
    """Write the input, and run the job on a local disk first."""
    config = fake_config(tokenizer, "units.max_rows=4", "protocol.max_length=40")
    pairs = folder / "pairs.parquet"
    rows = range(NUM_ROWS)
    table = pa.table(
        {
            "query_id": [f"q{row % 5}" for row in rows],
            "doc_id": [f"d{row}" for row in rows],
            "query": [None if row == 7 else f"what is number {row % 5}" for row in rows],
            "document": [f"Number {row} is told " + "again and " * (row % 11) for row in rows],
        }
    )
    pq.write_table(table, pairs, row_group_size=8)
    expected = score(config, [pairs], folder / "undisturbed").table
    s3.upload_file(str(pairs), bucket, "in/pairs.parquet")
    return Scene(
        config=config,
        input=f"s3://{bucket}/in/",
        expected=expected,
        bucket=bucket,
        s3=s3,
        proxy=proxy,
    )


def run_campaign(scene: Scene, seeds: Iterable[int], rate: float) -> Findings:
    """Run one job for every seed."""
    findings = Findings()
    for seed in seeds:
        _run_to_the_end(scene, seed, rate, findings)
    findings.injected = Counter(scene.proxy.injected)
    return findings


def _run_to_the_end(scene: Scene, seed: int, rate: float, findings: Findings) -> None:
    chooser = random.Random(seed)
    prefix = f"out/{seed}"
    findings.num_jobs += 1
    done = False
    for number in range(_MAX_COMMANDS):
        drivers: list[ForkServerProcess] = []
        # At which of the requests the first driver is killed.
        kill_at = chooser.randrange(130) if number < _LAST_KILL and chooser.random() < 0.6 else -1
        scene.proxy.restart_counting(_faults(drivers, seed, number, rate, kill_at))
        for _ in range(1 + (chooser.random() < 0.2)):
            drivers.append(start_job(scene.config, [scene.input], f"s3://{scene.bucket}/{prefix}"))
        for driver in drivers:
            driver.join(120)
            assert driver.exitcode is not None, "a driver hangs"
        codes = [driver.exitcode for driver in drivers]
        findings.num_commands += len(codes)
        findings.num_kills += codes.count(-9)
        findings.num_failed_commands += sum(code in (1, 2, 3) for code in codes)
        scene.proxy.wait_for_late_requests()
        done = 0 in codes
        look(scene, prefix, done, findings)
        if done:
            return
    findings.unfinished += 1


def _faults(
    drivers: list[ForkServerProcess],
    seed: int,
    number: int,
    rate: float,
    kill_at: int,
) -> Any:
    # A store that never answers lets no job end: the faults become fewer.
    faults = seeded(seed * 100 + number, rate / (1 + number // 4))

    def choose(request: Request) -> Fault | None:
        if request.order == kill_at and drivers:
            drivers[0].kill()
            # What the driver was doing at that moment arrives whole, in half, late, or not at all.
            return random.Random(f"{seed} {number}").choice(
                [None, Fault.CUT_UPLOAD, Fault.LATE, Fault.DROP_REQUEST]
            )
        return faults(request)

    return choose


def look(scene: Scene, prefix: str, done: bool, findings: Findings) -> None:
    """Read what is published, straight from the server, as any reader would."""
    names = read_objects(scene, prefix)
    parts = {name: content for name, content in names.items() if name.startswith("part-")}
    is_complete = "_SUCCESS" in names
    tables = []
    for content in parts.values():
        try:
            tables.append(pq.read_table(io.BytesIO(content), page_checksum_verification=True))
        except (OSError, pa.ArrowException):
            findings.unreadable += 1
    wanted = Counter(repr(row) for row in scene.expected.to_pylist())
    there = Counter(repr(row) for table in tables for row in table.to_pylist())
    lost = (wanted - there).total()
    for row, count in there.items():
        findings.wrong_rows += count if row not in wanted else 0
        findings.doubled += count - 1 if row in wanted else 0
    if done:
        findings.lost += lost
    if (done or is_complete) and (lost or not is_complete or len(parts) != NUM_UNITS):
        findings.false_successes += 1
    if is_complete:
        recorded = json.loads(names["_SUCCESS"])["files"]
        findings.false_successes += recorded.keys() != {name[5:11] for name in parts}


def read_objects(scene: Scene, prefix: str) -> dict[str, bytes]:
    """Return name → content of the objects directly below a prefix."""
    found = scene.s3.list_objects_v2(Bucket=scene.bucket, Prefix=f"{prefix}/", Delimiter="/")
    return {
        meta["Key"].rpartition("/")[2]: scene.s3.get_object(Bucket=scene.bucket, Key=meta["Key"])[
            "Body"
        ].read()
        for meta in found.get("Contents", [])
    }


def main() -> None:
    """Run a campaign by hand."""
    from tests.models import save_tiny_tokenizer
    from tests.servers.s3 import SETTINGS, client, s3_server

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.08, help="share of requests with a fault")
    arguments = parser.parse_args()
    with (
        s3_server() as port,
        FaultyProxy(port) as proxy,
        tempfile.TemporaryDirectory() as folder,
    ):
        os.environ.update(SETTINGS | {"AWS_ENDPOINT_URL": proxy.url, "AWS_TIMEOUT": TIMEOUT})
        s3 = client(port)
        s3.create_bucket(Bucket="bucket")
        tokenizer = save_tiny_tokenizer(Path(folder, "tokenizer"))
        scene = set_scene(tokenizer, Path(folder), "bucket", s3, proxy)
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.runs)
        started = time.monotonic()
        found = run_campaign(scene, seeds, arguments.rate)
    print(f"{time.monotonic() - started:.0f} s, seeds from {arguments.first_seed}")
    for name, value in asdict(found).items():
        if name != "injected":
            print(f"{name:<22}{value:>8,}")
    for fault, count in sorted(found.injected.items()):
        print(f"  {fault.name:<20}{count:>8,}   {fault}")


if __name__ == "__main__":
    main()
