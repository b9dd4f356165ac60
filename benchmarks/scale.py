"""What a plan of many files, a job of many units and a cluster of many workers cost the driver.

    python benchmarks/scale.py plan --files 100000
    python benchmarks/scale.py resume --units 1000000
    python benchmarks/scale.py driver --workers 2000 --seconds 120

plan    real Parquet files, a row group each: listed, footers read and checked, cut into units
resume  the plan of a job, and a file for all of its units but ten: read, listed and compared, up to
        the moment when units would be handed out
driver  the loop of the Ray executor, with the job's records, metrics and progress, on a real Ray.
        Its workers do nothing for as long as a unit takes, many in one process; what is measured is
        the CPU time of the driver's process, Ray's threads in it included

Each is a process of its own, so that peak memory is its own. Lines go to standard output, and with
--to to the end of a file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from rgpt_batch import JobConfig, load_config
from rgpt_batch.executors.base import Task
from rgpt_batch.executors.places import Place
from rgpt_batch.executors.ray_executor import RayExecutor
from rgpt_batch.executors.ray_slot import Slot
from rgpt_batch.executors.unit_queue import UnitQueue
from rgpt_batch.executors.unit_runner import UnitRunner
from rgpt_batch.job.metrics import JobMetrics, open_sinks
from rgpt_batch.job.plan import plan_job
from rgpt_batch.job.progress import ProgressDisplay, Tally
from rgpt_batch.job.restore import unscored
from rgpt_batch.job.run import Run
from rgpt_batch.job.terminal import Terminal
from rgpt_batch.output import open_store
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import Segment, UnitReport, WorkUnit

ROOT = Path(__file__).parent.parent
# ext4 allows 65,000 names of a file.
_NAMES_PER_FILE = 50_000
_ROWS = 4
_LEFT = 10
_WORKERS_PER_HOST = 500


def cpu_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Steps:
    """Prints how long steps take, on the clock and of the CPU, and peak memory so far."""

    def __init__(self, to: Path | None, title: str) -> None:
        self._to = to
        cores = len(os.sched_getaffinity(0))
        self.say(f"\n{title}, {time.strftime('%Y-%m-%d')}, {cores} cores\n")
        self.say("| step | seconds | CPU seconds | peak memory, MB |\n|---|---:|---:|---:|")

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        started, worked = time.perf_counter(), cpu_seconds()
        yield
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - worked
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        self.say(f"| {name} | {seconds:,.1f} | {cpu:,.1f} | {peak:,.0f} |")

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, flush=True)
        if self._to is not None:
            with self._to.open("a", encoding="utf-8") as stream:
                print(line, file=stream)


def config_of(*options: str) -> JobConfig:
    """A job with the fake engine, and the tokenizer of the benchmarks' smallest model."""
    from rgpt_batch.bench.models import random_model

    config = random_model("llama2-7b-tiny", ROOT / ".cache")[1]
    own = (f"model.name={config.model.name}", f"model.tokenizer={config.model.tokenizer}")
    return load_config(None, (*own, "engine.method=fake", *options))


def write_pairs(path: Path) -> None:
    """Write an input file of a few rows."""
    rows = range(_ROWS)
    table = pa.table(
        {
            "query_id": [f"q{row}" for row in rows],
            "doc_id": [f"d{row}" for row in rows],
            "query": ["a few words"] * _ROWS,
            "document": ["some more words than that"] * _ROWS,
        }
    )
    pq.write_table(table, path)


def link_names(folder: Path, base: Path, names: Iterator[str]) -> None:
    """Give a file many names; readers cannot tell that from many files."""
    content = base.read_bytes()
    for number, name in enumerate(names):
        if number % _NAMES_PER_FILE == 0:
            base = base.with_name(f"base-{number}")
            base.write_bytes(content)
        os.link(base, folder / name)


def measure_plan(folder: Path, num_files: int, to: Path | None) -> None:
    """Plan a job on many files."""
    pairs, scored = folder / "pairs", folder / "scored"
    pairs.mkdir()
    write_pairs(folder / "base")
    link_names(pairs, folder / "base", (f"{n:07d}.parquet" for n in range(num_files)))
    config = config_of("units.max_rows=4")
    steps = Steps(to, f"Plan of {num_files:,} files, a unit each")
    with steps.step("list, read footers, cut"):
        _, manifest = plan_job(config, [str(pairs)], str(scored))
    assert len(manifest.units) == num_files
    store = open_store(str(scored))
    with steps.step("write the plan"):
        store.save_manifest(manifest)
    size = sum(path.stat().st_size for path in (scored / "_rgpt").glob("plan-*.json"))
    print(f"the plan has {size / 1e6:,.0f} MB")


def many_units(num_units: int) -> tuple[WorkUnit, ...]:
    """Units of 20,000 rows, a hundred in each file of a bucket."""
    return tuple(
        WorkUnit(
            unit_id=f"{n:06d}",
            segments=(
                Segment(
                    path=f"s3://bucket/pairs/{n // 100:06d}.parquet",
                    version='123456789-"0123456789abcdef0123456789abcdef"',
                    first_row=n % 100 * 20_000,
                    num_rows=20_000,
                ),
            ),
            num_bytes=20_000_000,
        )
        for n in range(num_units)
    )


def planned(folder: Path, num_units: int) -> Manifest:
    """A plan of many units, with the identity of a job on one small file."""
    write_pairs(folder / "pairs.parquet")
    _, manifest = plan_job(config_of(), [str(folder / "pairs.parquet")], str(folder / "scored"))
    return Manifest(
        fingerprint=manifest.fingerprint,
        identity=manifest.identity,
        units=many_units(num_units),
    )


def write_resumable(folder: Path, num_units: int) -> None:
    """Write a plan, and a file for all of its units but a few."""
    manifest = planned(folder, num_units)
    open_store(str(folder / "scored")).save_manifest(manifest)
    names = (f"part-{unit.unit_id}.parquet" for unit in manifest.units[:-_LEFT])
    write_pairs(folder / "base")
    link_names(folder / "scored", folder / "base", names)


def measure_resume(folder: Path, to: Path | None) -> None:
    """Resume a job that lacks a few of its many units."""
    store = open_store(str(folder / "scored"))
    (plan,) = (folder / "scored" / "_rgpt").glob("plan-*.json")
    steps = Steps(to, f"Resume; the plan has {plan.stat().st_size / 1e6:,.0f} MB")
    with steps.step("read the plan"):
        manifest = store.load_manifest()
    assert manifest is not None
    with steps.step("look for _SUCCESS, list what is there"):
        files = store.withdraw_false_success()
    with steps.step("compare with the plan"):
        remaining = unscored(store, manifest, files)
    assert len(remaining) == _LEFT
    config = config_of()
    with steps.step("count rows, queue what is left"):
        missing = {unit.unit_id for unit in remaining}
        before = {unit.unit_id for unit in manifest.scored_units} - missing
        tally = Tally(num_units=len(manifest.units), num_rows=manifest.num_rows)
        Run(store, manifest, config, tally, before, print)
        UnitQueue(remaining, 3)
    with steps.step("the same for a job of which nothing is done: queue all"):
        UnitQueue(manifest.units, 3)


class Host:
    """Many simulated workers in one Ray actor. A unit takes its time, and computes nothing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._engines: dict[int, asyncio.Lock] = {}

    async def place(self, number: int) -> tuple[Place, None]:
        """See WorkerActor."""
        return Place(node_id="simulated", gpus=(str(number),)), None

    async def start(self, number: int, make_worker: object) -> None:
        """See WorkerActor."""
        self._engines[number] = asyncio.Lock()

    async def run(self, number: int, task: Task) -> UnitReport:
        """See WorkerActor."""
        started = time.time()
        async with self._engines[number]:
            seconds = self._seconds * random.uniform(0.5, 1.5)
            await asyncio.sleep(seconds)
        return UnitReport(
            unit_id=task.unit.unit_id,
            worker=f"10.0.0.1-{number}",
            num_rows=task.unit.num_rows,
            committed=True,
            engine="fake",
            passed_over=(),
            num_prompt_tokens=2_000_000,
            num_dropped_document_tokens=0,
            num_truncated_rows=0,
            read_seconds=1.0,
            engine_seconds=seconds,
            commit_seconds=0.1,
            started_at=started,
            finished_at=time.time(),
        )


class _Method:
    def __init__(self, method: Any, number: int) -> None:
        self._method, self._number = method, number

    def remote(self, *arguments: object) -> Any:
        return self._method.remote(self._number, *arguments)


class SimulatedActor:
    """What the executor sees of a worker."""

    def __init__(self, host: Any, number: int) -> None:
        self.place = _Method(host.place, number)
        self.start = _Method(host.start, number)
        self.run = _Method(host.run, number)


class SimulatedExecutor(RayExecutor):
    """The Ray executor, whose workers are simulated."""

    def __init__(self, config: JobConfig, seconds: float) -> None:
        super().__init__(config)
        self._unit_seconds = seconds
        self._hosts: list[Any] = []
        self._num_started = 0

    def __enter__(self) -> Self:
        super().__enter__()
        options = {"num_cpus": 0, "max_concurrency": 10 * _WORKERS_PER_HOST}
        num_hosts = -(-(self._config.num_workers or 1) // _WORKERS_PER_HOST)
        host = ray.remote(Host).options(**options)
        self._hosts = [host.remote(self._unit_seconds) for _ in range(num_hosts)]
        return self

    def __exit__(self, *error: Any) -> None:
        self._slots = []
        super().__exit__(*error)

    def _start(self) -> Slot:
        actor = SimulatedActor(
            self._hosts[self._num_started // _WORKERS_PER_HOST % len(self._hosts)],
            self._num_started,
        )
        self._num_started += 1
        return Slot(actor, actor.place.remote())


def measure_driver(
    folder: Path, num_workers: int, unit_seconds: float, seconds: float, to: Path | None
) -> None:
    """Run the driver's loop for some time, and say what it takes of a core."""
    num_units = int(num_workers * (seconds / unit_seconds + 10))
    manifest = planned(folder, num_units)
    config = config_of(
        f"executor.num_workers={num_workers}", f"watch.metrics_file={folder}/job.prom"
    )
    store = open_store(str(folder / "scored"))
    tally = Tally(num_units=num_units, num_rows=manifest.num_rows)
    run = Run(store, manifest, config, tally, set(), print)
    make_worker = functools.partial(
        UnitRunner, config, manifest.columns, manifest.fingerprint, store.location
    )
    steps = Steps(to, f"Driver of {num_workers:,} workers, units of {unit_seconds:g} s")
    executor = SimulatedExecutor(config, unit_seconds)
    with contextlib.ExitStack() as stack:
        stack.enter_context(steps.step("all, with the start of Ray and of the workers"))
        display = stack.enter_context(
            ProgressDisplay(tally, store, lambda: executor.activity, Terminal(), quiet=True)
        )
        stack.enter_context(executor)
        metrics = stack.enter_context(
            JobMetrics(run.run_id, tally, executor, open_sinks(config), print)
        )
        begun: tuple[float, float, int] | None = None
        for outcome in executor.run(manifest.units, make_worker):
            run.add(outcome)
            display.add(outcome)
            metrics.add(outcome)
            now = time.perf_counter()
            if begun is None:
                if tally.done.num_units > num_workers:
                    begun = now, time.process_time(), tally.done.num_units
            elif now - begun[0] > seconds:
                break
        assert begun is not None
        took = time.perf_counter() - begun[0]
        share = (time.process_time() - begun[1]) / took
    num_units = tally.done.num_units - begun[2]
    steps.say(
        f"\n{num_units:,} units in {took:.0f} s with all workers took {share:.1%} of a core: "
        f"{share / num_workers * 100:.2%} for 100 workers"
    )
    started = time.perf_counter()
    run.close("complete", {})
    steps.say(f"The record of {len(run.reports):,} units: {time.perf_counter() - started:.1f} s")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["plan", "resume", "resumed", "driver"])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2_000)
    parser.add_argument("--unit-seconds", type=float, default=60)
    parser.add_argument("--seconds", type=float, default=120, help="How long to measure the driver")
    parser.add_argument("--to", type=Path)
    parser.add_argument("--folder", type=Path, help="Of resumed: what resume has written")
    given = parser.parse_args()
    if given.what == "resumed":
        measure_resume(given.folder, given.to)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.what == "plan":
            measure_plan(folder, given.files, given.to)
        elif given.what == "driver":
            measure_driver(folder, given.workers, given.unit_seconds, given.seconds, given.to)
        else:
            write_resumable(folder, given.units)
            command = [sys.executable, __file__, "resumed", f"--folder={folder}"]
            subprocess.run([*command, f"--to={given.to}"] if given.to else command, check=True)


if __name__ == "__main__":
    main()
