"""Real actors on a real cluster, real crashes: os._exit and SIGKILL from within."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from rgpt_batch.errors import ConfigError, EngineStartError
from rgpt_batch.records import UnitFailure, UnitReport
from tests.executors.cluster import NUM_CPUS, wait_until_idle
from tests.executors.workers import (
    DEADLINE_SECONDS,
    Fault,
    Journal,
    MakeExecutor,
    Script,
    ScriptedWorker,
    make_units,
    run,
)

pytestmark = pytest.mark.ray


def test_two_workers_share_the_units_and_run_each_once(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    units = make_units(12)
    make_worker = partial(ScriptedWorker, tmp_path, Script(num_workers_that_meet=2))
    done, failures = run(ray_executor(num_workers=2), units, make_worker)
    assert sorted(done) == sorted(journal.units("begin")) == [unit.unit_id for unit in units]
    assert len(journal.workers("end")) == 2
    assert not failures


def test_the_last_units_are_spread_over_the_workers(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    make_worker = partial(ScriptedWorker, tmp_path, Script(num_workers_that_meet=2))
    run(ray_executor(num_workers=2), make_units(4), make_worker)
    per_worker = [event["worker"] for event in journal.events("end")]
    assert sorted(per_worker.count(worker) for worker in set(per_worker)) == [2, 2]


@pytest.mark.parametrize("fault", ["exit", "kill", "dead"])
def test_a_unit_that_kills_its_worker_fails_alone(
    ray_executor: MakeExecutor, fault: Fault, tmp_path: Path, journal: Journal
) -> None:
    script = Script(faults={"000001": fault})
    units = make_units(8, num_rows=1)
    done, failures = run(
        ray_executor(num_workers=2), units, partial(ScriptedWorker, tmp_path, script)
    )
    assert sorted(done) == [f"{i:06d}" for i in range(8) if i != 1]
    assert list(failures) == ["000001"]
    # Three times the unit, twice its only row, and once the unit without that row.
    assert journal.units("begin").count("000001") == 4
    assert journal.units("probe") == ["000001"] * 2
    assert failures["000001"].num_attempts == 6
    # Two at first, and at most one after each of the six attempts.
    assert len(journal.events("start")) <= 8
    expected = "scripted with unit 000001" if fault == "dead" else "the worker's process died"
    assert expected in failures["000001"].cause
    assert "\n" not in failures["000001"].cause


def test_innocent_units_survive_a_crash_even_without_retries(
    ray_executor: MakeExecutor, tmp_path: Path
) -> None:
    script = Script(faults={"000001": "kill"})
    done, failures = run(
        ray_executor(max_attempts=1),
        make_units(5, num_rows=1),
        partial(ScriptedWorker, tmp_path, script),
    )
    assert len(done) == 4
    assert list(failures) == ["000001"]


def test_a_worker_that_dies_once_is_replaced(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(once={"000002": "kill"})
    done, failures = run(ray_executor(), make_units(6), partial(ScriptedWorker, tmp_path, script))
    assert len(done) == 6 and not failures
    assert len(journal.events("start")) == 2


def test_workers_whose_process_dies_at_the_start_end_the_job(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    make_worker = partial(ScriptedWorker, tmp_path, Script(every_start="exit"))
    with pytest.raises(EngineStartError, match="died while it started: the worker's process died"):
        run(ray_executor(), make_units(3), make_worker)
    assert len(journal.events("start")) == 3


def test_engines_that_hang_while_they_start_end_the_job(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    make_worker = partial(ScriptedWorker, tmp_path, Script(every_start="hang"))
    with pytest.raises(EngineStartError, match=r"not loaded within 0\.5 s.*start_timeout_seconds"):
        run(ray_executor(start_timeout_seconds=0.5), make_units(3), make_worker)
    assert not journal.events("begin")


def test_an_engine_that_hangs_once_while_it_starts_is_replaced(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(starts=["hang"])
    executor = ray_executor(start_timeout_seconds=10)
    done, failures = run(executor, make_units(3), partial(ScriptedWorker, tmp_path, script))
    assert len(done) == 3 and not failures
    assert len(journal.events("start")) == 2


def test_a_worker_that_waits_for_its_place_is_not_taken_for_hung(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    # Each takes half of the cluster, so the third is placed when one of the others is gone.
    executor = ray_executor(num_workers=3, cpus_per_worker=NUM_CPUS / 2, start_timeout_seconds=10)
    script = Script(starts=["hang", "hang"])
    done, failures = run(executor, make_units(6), partial(ScriptedWorker, tmp_path, script))
    assert len(done) == 6 and not failures
    # Two starts in a row failed: one more that was blamed would have ended the job.
    assert len(journal.events("start")) >= 3


def test_starts_that_fail_at_first_are_tried_again(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(starts=["start-error", "exit"])
    done, failures = run(ray_executor(), make_units(3), partial(ScriptedWorker, tmp_path, script))
    assert len(done) == 3 and not failures
    assert len(journal.events("start")) == 3


def test_one_worker_that_starts_is_enough(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(starts=[None], every_start="start-error")
    done, failures = run(
        ray_executor(num_workers=2), make_units(6), partial(ScriptedWorker, tmp_path, script)
    )
    assert len(done) == 6 and not failures


def test_actors_go_when_the_caller_stops_in_the_middle(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    with pytest.raises(KeyboardInterrupt), ray_executor(num_workers=2) as executor:
        for _ in executor.run(make_units(50), partial(ScriptedWorker, tmp_path, Script())):
            raise KeyboardInterrupt
    wait_until_idle()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_worker": 1.5}, "whole numbers only"),
        (
            {"gpus_per_worker": 1, "tensor_parallel_size": 2},
            r"lets 2 GPUs share one engine. Set executor.gpus_per_worker=2",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused_at_once(
    ray_executor: MakeExecutor,
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    journal: Journal,
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(ray_executor(**options), make_units(2), partial(ScriptedWorker, tmp_path, Script()))
    assert not journal.events("start")


def test_more_workers_than_there_is_room_for_do_not_stop_the_job(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    executor = ray_executor(num_workers=NUM_CPUS + 2, cpus_per_worker=2)
    done, _ = run(executor, make_units(12), partial(ScriptedWorker, tmp_path, Script()))
    assert len(done) == 12


@pytest.mark.parametrize(("num_workers", "num_threads"), [(1, 4), (3, 1)])
def test_engines_without_gpus_share_the_cpus(
    ray_executor: MakeExecutor, num_workers: int, num_threads: int, tmp_path: Path, journal: Journal
) -> None:
    executor = ray_executor(num_workers=num_workers, gpus_per_worker=0, method="transformers")
    script = Script(num_workers_that_meet=num_workers)
    run(executor, make_units(6), partial(ScriptedWorker, tmp_path, script))
    assert [event["threads"] for event in journal.events("start")] == [
        str(num_threads)
    ] * num_workers


def test_while_others_hold_the_cpus_the_job_waits_and_says_so(
    ray_executor: MakeExecutor, tmp_path: Path
) -> None:
    class Blocker:
        pass

    blocker = ray.remote(num_cpus=NUM_CPUS)(Blocker).remote()
    ray.get(blocker.__ray_ready__.remote())
    executor = ray_executor()
    outcomes: list[UnitReport | UnitFailure] = []

    def score() -> None:
        with executor:
            outcomes.extend(
                executor.run(make_units(3), partial(ScriptedWorker, tmp_path, Script()))
            )

    thread = threading.Thread(target=score)
    thread.start()
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while executor.activity != "waiting until Ray has 1 CPU free for a worker":
            assert time.monotonic() < deadline, executor.activity
            time.sleep(0.02)
    finally:
        ray.kill(blocker)
        thread.join(DEADLINE_SECONDS)
    assert len(outcomes) == 3
    assert executor.activity == "scoring on 1 worker"
