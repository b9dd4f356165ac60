from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from rgpt_batch.errors import CommitError, EngineDead, EngineError, ShardError
from rgpt_batch.executors.base import Task
from rgpt_batch.executors.unit_queue import UnitQueue
from rgpt_batch.output import open_store
from rgpt_batch.output.begun import Begun
from rgpt_batch.output.claims import Claims
from rgpt_batch.records import Segment, UnitFailure, WorkUnit
from tests.executors.workers import make_units, report

BOOM = EngineError("boom")
DEAD = EngineDead("the process died")
FULL = CommitError("No space left on device")


def task(unit: WorkUnit) -> Task:
    return Task(unit=unit)


def take(waiting: UnitQueue, *, alone: bool = True) -> Task:
    """Take a task where there must be one."""
    taken = waiting.take(alone=alone)
    assert taken is not None
    return taken


def test_largest_units_come_first() -> None:
    units = make_units(3)
    waiting = UnitQueue(units[::-1], max_attempts=3)
    assert [waiting.take(alone=False) for _ in range(4)] == [*map(task, units), None]


def test_units_that_earlier_runs_have_begun_come_last_and_alone(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    units = make_units(4)
    for number, begun_units in enumerate(((0, 1), (1,)), start=1):
        earlier = Begun(store, f"run-{number}")
        for index in begun_units:
            earlier.note(units[index].unit_id)
    waiting = UnitQueue(units, max_attempts=3, begun=Begun(store, "run-3"))
    assert [take(waiting, alone=False).unit for _ in range(2)] == units[2:]
    assert waiting.take(alone=False) is None
    assert len(waiting) == 2
    # The one that two runs have begun is the last of all.
    assert [take(waiting).unit for _ in range(2)] == units[:2]
    assert not waiting.has_more
    now = Begun(store, "run-4")
    assert [now.times(unit.unit_id) for unit in units] == [2, 3, 1, 1]


@pytest.mark.parametrize(("end", "num_left"), [(None, 0), (KeyboardInterrupt(), 0), (DEAD, 2)])
def test_what_was_begun_is_forgotten_unless_the_run_has_died(
    end: BaseException | None, num_left: int, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path))
    Begun(store, "run-1").note("000000")
    with suppress(KeyboardInterrupt, EngineDead), Begun(store, "run-2") as begun:
        begun.note("000001")
        if end:
            raise end
    assert len(store.read_begun()) == num_left


def test_what_has_ended_is_not_what_has_ended_the_run(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    units = make_units(5)
    waiting = UnitQueue(units, max_attempts=1, begun=Begun(store, "run-1"))
    tasks = [take(waiting, alone=False) for _ in range(3)]
    waiting.done(tasks[0])
    waiting.failed(tasks[1], FULL)
    take(waiting, alone=False)
    assert store.read_begun() == {"run-1": ["000002", "000003"]}
    left = UnitQueue(units[1:], max_attempts=1, begun=Begun(store, "run-2"))
    assert [take(left, alone=False).unit for _ in range(2)] == [units[1], units[4]]
    assert left.take(alone=False) is None


def test_a_unit_that_raises_is_tried_again_after_the_others_and_then_given_up() -> None:
    first, second = make_units(2)
    waiting = UnitQueue([first, second], max_attempts=2)
    assert waiting.failed(take(waiting), FULL) is None
    assert take(waiting).unit == second
    assert take(waiting).unit == first
    failure = waiting.failed(task(first), FULL)
    assert failure is not None
    assert (failure.unit_id, failure.num_rows, failure.num_attempts) == ("000000", 5, 2)
    assert failure.cause == "CommitError: No space left on device"
    assert len(waiting) == 0


def test_the_row_that_an_engine_cannot_score_is_found_and_the_others_are_scored() -> None:
    guilty, innocent = make_units(2)
    waiting = UnitQueue([guilty, innocent], max_attempts=3)
    num_errors, committed, failures = run_with_poison(waiting, {"000000": {3}}, BOOM)
    assert committed == {"000000": {3}, "000001": frozenset()}
    assert not failures
    # Three with the whole unit, and two with the row alone.
    assert num_errors == 5


def test_where_the_engine_can_score_no_row_the_unit_is_given_up_with_the_cause() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=3)
    num_errors, committed, failures = run_with_poison(waiting, {"000000": set(range(5))}, BOOM)
    assert not committed
    assert failures["000000"].num_attempts == num_errors == 3 + 5 * 2
    assert failures["000000"].cause == "EngineError: boom"


def test_rows_are_not_blamed_for_what_passes() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=1)
    # The engine fails with the unit, and with two rows; then it is well again.
    for _ in range(3):
        assert waiting.failed(take(waiting), BOOM) is None
    assert run_with_poison(waiting, {}) == (0, {"000000": frozenset()}, {})


def test_suspects_of_a_crash_wait_for_a_worker_without_other_units() -> None:
    units = make_units(3)
    waiting = UnitQueue(units, max_attempts=3)
    lost = [take(waiting, alone=False), take(waiting, alone=False)]
    assert waiting.crashed(lost, DEAD) == []
    assert take(waiting, alone=False).unit == units[2]
    assert waiting.take(alone=False) is None
    assert len(waiting) == 2
    assert take(waiting).unit == units[0]
    assert waiting.is_suspect(units[0]) and not waiting.is_suspect(units[2])


def run_with_poison(
    waiting: UnitQueue, poison: dict[str, set[int]], error: Exception = DEAD
) -> tuple[int, dict[str, frozenset[int]], dict[str, UnitFailure]]:
    """Run alone what waits; a task that touches a row of `poison` fails. Returns what happened.

    Args:
        waiting: The queue.
        poison: Unit id → rows that kill a worker, or cannot be scored.
        error: How they do it.
    """
    num_crashes = 0
    committed: dict[str, frozenset[int]] = {}
    failures: dict[str, UnitFailure] = {}
    while todo := waiting.take(alone=True):
        unit_id = todo.unit.unit_id
        rows = set(range(todo.unit.num_rows) if todo.probe is None else todo.probe)
        if poison.get(unit_id, set()) & (rows - todo.crashing_rows):
            num_crashes += 1
            if error is DEAD:
                failures |= {f.unit_id: f for f in waiting.crashed([todo], DEAD)}
            elif failure := waiting.failed(todo, error):
                failures[unit_id] = failure
        else:
            waiting.done(todo)
            if todo.probe is None:
                committed[unit_id] = todo.crashing_rows
    return num_crashes, committed, failures


def test_the_row_that_kills_every_worker_is_found_and_innocent_units_have_none() -> None:
    guilty, *innocents = make_units(3)
    waiting = UnitQueue([guilty, *innocents], max_attempts=3)
    lost = [take(waiting, alone=False) for _ in range(3)]
    assert waiting.crashed(lost, DEAD) == []
    num_crashes, committed, failures = run_with_poison(waiting, {guilty.unit_id: {3}})
    assert committed == {"000000": {3}, "000001": frozenset(), "000002": frozenset()}
    assert not failures
    # Two more with the whole unit, and two with the row alone.
    assert num_crashes == 4


@pytest.mark.parametrize(
    ("num_rows", "poison", "most_crashes"),
    [(1, {0}, 5), (32, {31}, 5), (1000, {500}, 6), (20_000, {0}, 7), (20_000, {7, 19_999}, 11)],
)
def test_few_crashes_find_the_rows_of_a_large_unit(
    num_rows: int, poison: set[int], most_crashes: int
) -> None:
    segment = Segment(path="/none", version="", first_row=0, num_rows=num_rows)
    unit = WorkUnit(unit_id="000000", segments=(segment,), num_bytes=1)
    waiting = UnitQueue([unit], max_attempts=3)
    num_crashes, committed, _ = run_with_poison(waiting, {"000000": poison})
    assert committed == {"000000": poison}
    assert num_crashes <= most_crashes


def test_a_unit_full_of_rows_that_kill_is_given_up_and_the_others_are_done() -> None:
    first, second = make_units(2, num_rows=100)
    waiting = UnitQueue([first, second], max_attempts=3)
    num_crashes, committed, failures = run_with_poison(waiting, {"000000": set(range(100))})
    assert committed == {"000001": frozenset()}
    assert list(failures) == ["000000"]
    assert "the process died" in failures["000000"].cause
    assert failures["000000"].num_attempts == num_crashes < 20


def test_rows_are_not_blamed_where_no_row_can_be_scored() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=3)
    num_crashes, committed, failures = run_with_poison(waiting, {"000000": set(range(5))})
    assert not committed
    assert failures["000000"].num_attempts == num_crashes == 3 + 5 * 2


def test_a_unit_that_dies_as_a_whole_but_not_in_parts_is_given_up() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=2)
    failures = []
    while todo := waiting.take(alone=True):
        if todo.probe is None:
            failures += waiting.crashed([todo], DEAD)
        else:
            waiting.done(todo)
    assert [failure.num_attempts for failure in failures] == [3]


def test_a_row_that_was_alone_with_one_crash_only_is_not_guilty() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=1)
    waiting.crashed([take(waiting)], DEAD)
    todo = take(waiting)
    assert todo.probe == range(1)
    # A machine is lost.
    assert waiting.crashed([todo], DEAD) == []
    assert run_with_poison(waiting, {}) == (0, {"000000": frozenset()}, {})


def test_a_probe_that_cannot_be_read_gives_the_unit_up() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=1)
    waiting.crashed([take(waiting)], DEAD)
    failure = waiting.failed(take(waiting), ShardError("gone"))
    assert failure is not None
    assert failure.cause == "ShardError: gone"
    assert len(waiting) == 0


@pytest.mark.parametrize("num_crashes", [1, 5])
def test_no_unit_is_searched_for_a_crash_that_others_may_have_caused(num_crashes: int) -> None:
    tasks = [*map(task, make_units(2))]
    waiting = UnitQueue([], max_attempts=1)
    for _ in range(num_crashes):
        assert waiting.crashed(tasks, DEAD) == []
        assert [take(waiting).probe for _ in tasks] == [None, None]
    waiting.crashed(tasks[:1], DEAD)
    assert take(waiting).probe is not None


def test_a_preempted_worker_costs_its_units_no_attempt() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=1)
    for _ in range(5):
        assert waiting.crashed([take(waiting, alone=False)], DEAD, blame=False) == []
    assert not waiting.is_suspect(unit)


def test_a_preempted_worker_does_not_disturb_a_search() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=1)
    waiting.crashed([take(waiting)], DEAD)
    for _ in range(5):
        assert waiting.crashed([take(waiting)], DEAD, blame=False) == []
    assert run_with_poison(waiting, {"000000": {4}})[1] == {"000000": {4}}


def test_many_machines_that_are_lost_at_once_do_not_stop_the_job() -> None:
    waiting = UnitQueue(make_units(64), max_attempts=1)
    lost = [take(waiting, alone=False) for _ in range(64)]
    for lost_task in lost:
        assert waiting.crashed([lost_task], DEAD, blame=False) == []
    assert len(waiting) == 64


def test_a_unit_that_takes_down_machine_after_machine_is_blamed_in_the_end() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=1)
    for _ in range(20):
        waiting.crashed([take(waiting)], DEAD, blame=False)
        assert not waiting.is_suspect(unit)
    waiting.crashed([take(waiting)], DEAD, blame=False)
    assert waiting.is_suspect(unit)
    assert take(waiting).probe is not None


def test_a_suspect_that_raises_stays_a_suspect() -> None:
    units = make_units(2)
    waiting = UnitQueue(units, max_attempts=3)
    waiting.crashed([take(waiting, alone=False)], DEAD)
    waiting.failed(take(waiting), BOOM)
    assert take(waiting, alone=False).unit == units[1]
    assert take(waiting).unit == units[0]


def test_when_unit_after_unit_fails_the_job_stops_with_the_cause() -> None:
    waiting = UnitQueue(make_units(100), max_attempts=3)
    with pytest.raises(CommitError, match=r"20 failures in a row .* No space left"):
        for _ in range(20):
            waiting.failed(take(waiting), FULL)


def test_failures_with_successes_in_between_do_not_stop_the_job() -> None:
    waiting = UnitQueue(make_units(100), max_attempts=3)
    for _ in range(40):
        waiting.failed(take(waiting), BOOM)
        waiting.done(take(waiting))


def test_second_attempts_of_bad_units_at_the_end_do_not_stop_the_job() -> None:
    waiting = UnitQueue(make_units(19), max_attempts=3)
    failures = []
    while todo := waiting.take(alone=True):
        if failure := waiting.failed(todo, BOOM):
            failures.append(failure)
    assert len(failures) == 19


def test_damaged_shards_do_not_stop_the_job() -> None:
    waiting = UnitQueue(make_units(100), max_attempts=1)
    failures = [waiting.failed(take(waiting), ShardError("gone")) for _ in range(100)]
    assert all(failures)


def test_workers_that_die_one_after_the_other_stop_the_job() -> None:
    waiting = UnitQueue(make_units(100), max_attempts=3)
    with pytest.raises(EngineDead, match="20 failures in a row"):
        for _ in range(20):
            waiting.crashed([take(waiting)], DEAD)


def test_what_is_left_is_shared_by_the_workers_of_all_processes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write_process("run-of-another", {})
    alone = UnitQueue(make_units(24), max_attempts=3)
    assert [alone.share(0, 1), alone.share(0, 4), alone.share(8, 4), alone.share(0, 0)] == [
        24,
        6,
        8,
        24,
    ]
    with Claims(store, "run-of-this", 600, dict, lambda unit_ids: None) as claims:
        shared = UnitQueue(make_units(24), max_attempts=3, claims=claims)
        assert [shared.share(0, 4), shared.share(0, 24)] == [3, 1]


def test_a_unit_that_a_lost_attempt_has_committed_is_of_this_run() -> None:
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=3)
    late = replace(report(unit, "worker"), committed=False)
    first = take(waiting)
    assert not waiting.with_attempts(late).committed
    assert waiting.crashed([first], DEAD, blame=False) == []
    take(waiting)
    assert waiting.with_attempts(late).committed


def test_what_is_noted_on_the_last_failure_stands_below_the_error_that_stops_the_job() -> None:
    waiting = UnitQueue(make_units(100), max_attempts=3)
    dead = EngineDead("the process died")
    dead.add_note("see the log /logs/worker.log")
    with pytest.raises(EngineDead, match="20 failures in a row") as caught:
        for _ in range(20):
            waiting.crashed([take(waiting)], dead)
    assert caught.value.__notes__ == ["see the log /logs/worker.log"]
