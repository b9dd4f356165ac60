"""A cluster that has no place for a worker yet, on the session's cluster, which nodes join.

Every node that joins costs some 3 s where cores are free.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.errors import EngineStartError
from tests.executors.background import in_background, wait_for_activity, wait_for_outcomes
from tests.executors.cluster import NUM_CPUS, joined_node, wait_for_free_cpus
from tests.executors.workers import (
    Journal,
    MakeExecutor,
    Script,
    ScriptedWorker,
    make_units,
    run,
)

pytestmark = pytest.mark.ray


def test_workers_with_gpus_wait_for_them_and_scoring_starts_with_the_first(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    # CPUs there are, but who asks for GPUs gets no worker without one.
    executor = ray_executor(num_workers=3, gpus_per_worker=1)
    make_worker = partial(ScriptedWorker, tmp_path, Script())
    with in_background(executor, make_units(12), make_worker) as outcomes:
        wait_for_activity(
            executor,
            "waiting for 3 workers of 1 GPU and 1 CPU each; the cluster's nodes have 0 GPUs and "
            f"{NUM_CPUS} CPUs",
        )
        assert not journal.events("start")
        with joined_node(num_cpus=1, num_gpus=1):
            journal.wait_for_workers("end", 1)
            wait_for_outcomes(executor, outcomes, 12)
    assert executor.activity == "scoring on 1 of 3 workers"
    assert [event["gpus"] for event in journal.events("start")] == ["0"]
    assert sorted(journal.units("begin")) == [f"{i:06d}" for i in range(12)]


def test_gpus_that_join_later_get_workers_of_their_own(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    # No unit is done before three workers have one in hand, and the first node has room for one.
    script = Script(num_workers_that_meet=3)
    executor = ray_executor(num_workers=None, gpus_per_worker=1)
    make_worker = partial(ScriptedWorker, tmp_path, script)
    with (
        joined_node(num_cpus=1, num_gpus=1),
        in_background(executor, make_units(12), make_worker) as outcomes,
    ):
        journal.wait_for_workers("begin", 1)
        with joined_node(num_cpus=2, num_gpus=2):
            wait_for_outcomes(executor, outcomes, 12)
    assert len(outcomes) == 12


@pytest.mark.parametrize("has_notice", [False, True])
def test_units_of_a_machine_that_is_lost_or_taken_back_are_not_blamed(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal, has_notice: bool
) -> None:
    # The only attempt that it may have is cut off; that one does not count. A spot machine gives
    # notice before it is gone.
    script = Script(num_workers_that_meet=2)
    executor = ray_executor(num_workers=1, gpus_per_worker=1, max_attempts=1)
    make_worker = partial(ScriptedWorker, tmp_path, script)
    with (
        in_background(executor, make_units(1), make_worker) as outcomes,
        joined_node(num_cpus=1, num_gpus=1) as lost,
    ):
        journal.wait_for_workers("begin", 1)
        if has_notice:
            lost.announce_end()
        lost.lose()
        with joined_node(num_cpus=1, num_gpus=1):
            wait_for_outcomes(executor, outcomes, 1)
    assert [outcome.num_attempts for outcome in outcomes] == [1]


def test_a_worker_is_kept_busy_while_others_have_no_place(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    # Three units of one worker have to be in hand at once, though eight workers were asked for.
    executor = ray_executor(num_workers=8, cpus_per_worker=NUM_CPUS)
    script = Script(num_units_that_meet=3)
    done, failures = run(executor, make_units(6), partial(ScriptedWorker, tmp_path, script))
    assert sorted(done) == sorted(journal.units("begin")) and len(done) == 6
    assert not failures


def test_workers_are_asked_for_while_units_wait_and_released_when_they_are_idle(
    ray_executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    # Units 1 to 3 are done when four are in hand: four workers have one each. Unit 0 goes on.
    go_on = tmp_path / "go-on"
    script = Script(num_workers_that_meet=NUM_CPUS, waits_for={"000000": go_on})
    executor = ray_executor(num_workers=None, min_workers=2, max_workers=8, cpus_per_worker=1)
    make_worker = partial(ScriptedWorker, tmp_path, script)
    with in_background(executor, make_units(NUM_CPUS), make_worker) as outcomes:
        wait_for_outcomes(executor, outcomes, NUM_CPUS - 1)
        wait_for_activity(executor, "scoring on 2 workers")
        wait_for_free_cpus(NUM_CPUS - 2)
        go_on.touch()
    assert len(journal.workers("begin")) == NUM_CPUS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cpus_per_worker": NUM_CPUS + 1},
            rf"asks for 1 worker of {NUM_CPUS + 1} CPUs; the cluster's nodes have 0 GPUs and "
            rf"{NUM_CPUS} CPUs\..*executor\.place_timeout_seconds",
        ),
        ({"gpus_per_worker": 1, "num_workers": 8}, "8 workers of 1 GPU and 1 CPU each; the clus"),
        ({"gpus_per_worker": 1, "num_workers": None}, "1 worker of 1 GPU and 1 CPU; the clus"),
        ({"method": "auto", "tensor_parallel_size": 2}, "1 worker of 2 GPUs and 1 CPU; the clus"),
    ],
)
def test_a_node_that_never_comes_ends_the_job_with_what_was_asked_and_what_there_is(
    ray_executor: MakeExecutor,
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    journal: Journal,
) -> None:
    executor = ray_executor(place_timeout_seconds=1.5, **options)
    with pytest.raises(EngineStartError, match=rf"no place for a worker within 1\.5 s.*{message}"):
        run(executor, make_units(8), partial(ScriptedWorker, tmp_path, Script()))
    assert not journal.events("start")
