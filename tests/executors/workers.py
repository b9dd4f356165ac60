"""Workers for tests of executors: they keep a journal, and fail where a test says so."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import CommitError, ConfigError, EngineDead, EngineStartError, ShardError
from rgpt_batch.executors.base import Executor, MakeWorker
from rgpt_batch.records import Segment, UnitFailure, UnitReport, WorkUnit

DEADLINE_SECONDS = 180.0

MakeExecutor = Callable[..., Executor]

Fault = Literal[
    "raise",
    "foreign",
    "shard",
    "commit",
    "dead",
    "exit",
    "kill",
    "sysexit",
    "start-error",
    "config",
    "hang",
]


class Unpicklable(Exception):
    """Like the errors of some libraries: pickling works, unpickling does not."""

    def __init__(self, reason: str, *, response: int) -> None:
        super().__init__(reason)


class Journal:
    """What happened, in order, written by any number of processes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal.jsonl"

    def note(self, event: str, unit: str = "", worker: str = "") -> None:
        threads = os.environ.get("OMP_NUM_THREADS")
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
        entry = {"event": event, "unit": unit, "worker": worker, "threads": threads, "gpus": gpus}
        line = json.dumps(entry) + "\n"
        descriptor = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def events(self, event: str) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def units(self, event: str) -> list[str]:
        return [entry["unit"] for entry in self.events(event)]

    def workers(self, event: str) -> set[str]:
        return {entry["worker"] for entry in self.events(event)}

    def wait_for_workers(self, event: str, number: int) -> None:
        self._wait_for(lambda: self.workers(event), event, number)

    def wait_for_units(self, event: str, number: int) -> None:
        self._wait_for(lambda: set(self.units(event)), event, number)

    def _wait_for(self, arrivals: Callable[[], Sized], event: str, number: int) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(arrivals()) < number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"fewer than {number} came to '{event}'")
            time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Script:
    """What goes wrong.

    Attributes:
        faults: Unit id → what happens to every attempt at it.
        once: Unit id → what happens to the first attempt alone.
        starts: What happens to the first, second, … start of a worker; None is a good start.
        every_start: What happens to all starts after those.
        broken_gpus: CUDA_VISIBLE_DEVICES of the workers whose starts all fail.
        broken_nodes: Ray's ids of the nodes on which all starts fail.
        num_failed_starts_before: A good start takes until so many have failed.
        num_workers_that_meet: A unit is done only when so many workers have one in hand.
        num_units_that_meet: A unit is done only when so many have been begun.
        waits_for: Unit id → a file without which the unit is not done.
    """

    faults: Mapping[str, Fault] | None = None
    once: Mapping[str, Fault] | None = None
    starts: Sequence[Fault | None] = ()
    every_start: Fault | None = None
    broken_gpus: frozenset[str] = frozenset()
    broken_nodes: frozenset[str] = frozenset()
    num_failed_starts_before: int = 0
    num_workers_that_meet: int = 1
    num_units_that_meet: int = 1
    waits_for: Mapping[str, Path] | None = None


class ScriptedWorker:
    """Follows a script."""

    def __init__(self, folder: Path, script: Script, name: str) -> None:
        self._journal = Journal(folder)
        self._script = script
        self._name = name
        self._journal.note("start", worker=name)
        num_starts = len(self._journal.events("start"))
        starts = script.starts
        fault = starts[num_starts - 1] if num_starts <= len(starts) else script.every_start
        if fault:
            _fail(fault, f"at start {num_starts}")
        if script.broken_gpus or script.broken_nodes:
            self._meet_the_place()

    def _meet_the_place(self) -> None:
        import ray

        script = self._script
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        node_id = ray.get_runtime_context().get_node_id()
        if gpus in script.broken_gpus or node_id in script.broken_nodes:
            self._journal.note("failed start", node_id, self._name)
            _fail("start-error", f"on a broken place, GPU {gpus}")
        self._journal.wait_for_workers("failed start", script.num_failed_starts_before)
        self._journal.note("good start", node_id, self._name)

    def run(self, unit: WorkUnit, crashing_rows: frozenset[int] = frozenset()) -> UnitReport:
        is_first = unit.unit_id not in self._journal.units("begin")
        self._journal.note("begin", unit.unit_id, self._name)
        self._journal.wait_for_workers("begin", self._script.num_workers_that_meet)
        self._journal.wait_for_units("begin", self._script.num_units_that_meet)
        if path := (self._script.waits_for or {}).get(unit.unit_id):
            _wait_for_file(path)
        fault = (self._script.faults or {}).get(unit.unit_id)
        fault = fault or (is_first and (self._script.once or {}).get(unit.unit_id)) or None
        if fault:
            _fail(fault, f"with unit {unit.unit_id}")
        self._journal.note("end", unit.unit_id, self._name)
        return report(unit, self._name)

    def probe(self, unit: WorkUnit) -> None:
        self._journal.note("probe", unit.unit_id, self._name)
        if fault := (self._script.faults or {}).get(unit.unit_id):
            _fail(fault, f"with unit {unit.unit_id}")

    def close(self) -> None:
        self._journal.note("close", worker=self._name)


class TalkativeWorker(ScriptedWorker):
    """Prints as libraries do: to both file descriptors, beside Python's streams."""

    def __init__(self, folder: Path, script: Script, name: str) -> None:
        os.write(1, b"loading shards: 50 %\rloading shards: 100 %\n")
        os.write(2, b"[W] no NUMA node; asked https://user:canary-7f3a@host/\n")
        super().__init__(folder, script, name)


class OverlappingWorker:
    """Reads, scores and commits as UnitRunner does; a stage ends only while two others are at work.

    The commit of unit n, the scoring of unit n + 1 and the reading of unit n + 2 meet, for every n.
    Without three units in flight nobody comes to the meeting, and the units fail.
    """

    def __init__(self, num_units: int, name: str) -> None:
        self._name = name
        self._num_units = num_units
        self._meetings = [threading.Barrier(3) for _ in range(num_units - 2)]
        self._engine = threading.Condition()
        self._num_scored = 0

    def run(self, unit: WorkUnit, crashing_rows: frozenset[int] = frozenset()) -> UnitReport:
        number = int(unit.unit_id)
        self._meet(number - 2)
        with self._engine:
            if not self._engine.wait_for(lambda: self._num_scored == number, DEADLINE_SECONDS):
                raise TimeoutError("the units before this one were not scored")
            self._meet(number - 1)
            self._num_scored += 1
            self._engine.notify_all()
        self._meet(number)
        return report(unit, self._name)

    def _meet(self, number: int) -> None:
        if 0 <= number < len(self._meetings):
            self._meetings[number].wait(DEADLINE_SECONDS)

    def probe(self, unit: WorkUnit) -> None:
        raise NotImplementedError("no worker crashes here")

    def close(self) -> None:
        pass


def _wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.02)


def _fail(fault: Fault, where: str) -> None:
    match fault:
        case "raise":
            raise ValueError(f"scripted {where}")
        case "foreign":
            raise Unpicklable(f"scripted {where}", response=500)
        case "shard":
            raise ShardError(f"scripted {where}")
        case "commit":
            raise CommitError(f"scripted {where}")
        case "dead":
            raise EngineDead(f"scripted {where}")
        case "start-error":
            raise EngineStartError(f"scripted {where}")
        case "config":
            raise ConfigError(f"scripted {where}")
        case "exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            threading.Event().wait()
        case "sysexit":
            raise SystemExit(f"scripted {where}")


def report(unit: WorkUnit, worker: str) -> UnitReport:
    return UnitReport(
        unit_id=unit.unit_id,
        worker=worker,
        num_rows=unit.num_rows,
        committed=True,
        engine="fake",
        passed_over=(),
        num_prompt_tokens=0,
        num_dropped_document_tokens=0,
        num_truncated_rows=0,
        read_seconds=0.0,
        engine_seconds=0.0,
        commit_seconds=0.0,
        started_at=0.0,
        finished_at=0.0,
    )


def make_units(number: int, *, num_rows: int = 5) -> list[WorkUnit]:
    """Make units of equal size; executors hand them out in the order of their ids."""
    segment = Segment(path="/none", version="", first_row=0, num_rows=num_rows)
    return [
        WorkUnit(unit_id=f"{i:06d}", segments=(segment,), num_bytes=number - i)
        for i in range(number)
    ]


def make_config(
    method: str = "fake",
    tensor_parallel_size: int = 1,
    pipeline_parallel_size: int = 1,
    **executor: Any,
) -> JobConfig:
    engine = {
        "method": method,
        "tensor_parallel_size": tensor_parallel_size,
        "pipeline_parallel_size": pipeline_parallel_size,
    }
    return JobConfig.model_validate(
        {"model": {"name": "none"}, "engine": engine, "executor": executor}
    )


def run(
    executor: Executor, units: Sequence[WorkUnit], make_worker: MakeWorker
) -> tuple[list[str], dict[str, UnitFailure]]:
    """Run to the end; returns the ids of committed units and the failures by id."""
    with executor:
        outcomes = list(executor.run(units, make_worker))
    done = [outcome.unit_id for outcome in outcomes if isinstance(outcome, UnitReport)]
    failures = {o.unit_id: o for o in outcomes if isinstance(o, UnitFailure)}
    assert len(done) + len(failures) == len(outcomes)
    return done, failures
