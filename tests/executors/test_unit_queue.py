import pytest

from rgpt_batch.errors import CommitError, EngineDead, EngineError, ShardError
from rgpt_batch.executors.base import UnitQueue
from tests.executors.workers import make_units

BOOM = EngineError("boom")
DEAD = EngineDead("the process died")


def test_largest_units_come_first():
    units = make_units(3)
    waiting = UnitQueue(reversed(units), max_attempts=3)
    assert [waiting.take(alone=False) for _ in range(4)] == [*units, None]


def test_a_unit_that_raises_is_tried_again_after_the_others_and_then_given_up():
    first, second = make_units(2)
    waiting = UnitQueue([first, second], max_attempts=2)
    assert waiting.failed(waiting.take(alone=True), BOOM) is None
    assert waiting.take(alone=True) == second
    assert waiting.take(alone=True) == first
    failure = waiting.failed(first, BOOM)
    assert (failure.unit_id, failure.num_rows, failure.num_attempts) == ("000000", 5, 2)
    assert failure.cause == "EngineError: boom"
    assert len(waiting) == 0


def test_suspects_of_a_crash_wait_for_a_worker_without_other_units():
    units = make_units(3)
    waiting = UnitQueue(units, max_attempts=3)
    lost = [waiting.take(alone=False), waiting.take(alone=False)]
    assert waiting.crashed(lost, DEAD) == []
    assert waiting.take(alone=False) == units[2]
    assert waiting.take(alone=False) is None
    assert len(waiting) == 2
    assert waiting.take(alone=True) == units[0]
    assert waiting.is_suspect(units[0]) and not waiting.is_suspect(units[2])


def test_the_unit_that_kills_every_worker_collects_the_crashes_and_innocents_do_not():
    guilty, *innocents = make_units(3)
    waiting = UnitQueue([guilty, *innocents], max_attempts=3)
    lost = [waiting.take(alone=False) for _ in range(3)]
    assert waiting.crashed(lost, DEAD) == []
    crashes = 1
    given_up = []
    while unit := waiting.take(alone=True):
        if unit == guilty:
            crashes += 1
            given_up += waiting.crashed([unit], DEAD)
        else:
            waiting.done()
    assert [failure.unit_id for failure in given_up] == [guilty.unit_id]
    assert (crashes, given_up[0].num_attempts) == (3, 3)


@pytest.mark.parametrize("num_crashes", [1, 5])
def test_no_unit_is_given_up_for_a_crash_that_others_may_have_caused(num_crashes):
    units = make_units(2)
    waiting = UnitQueue(units, max_attempts=1)
    for _ in range(num_crashes):
        assert waiting.crashed(units, DEAD) == []
    assert waiting.crashed(units[:1], DEAD)[0].num_attempts == 1


def test_a_preempted_worker_costs_its_units_no_attempt():
    (unit,) = make_units(1)
    waiting = UnitQueue([unit], max_attempts=1)
    for _ in range(5):
        assert waiting.crashed([waiting.take(alone=False)], DEAD, blame=False) == []
    assert not waiting.is_suspect(unit)


def test_a_suspect_that_raises_stays_a_suspect():
    units = make_units(2)
    waiting = UnitQueue(units, max_attempts=3)
    waiting.crashed([waiting.take(alone=False)], DEAD)
    waiting.failed(waiting.take(alone=True), BOOM)
    assert waiting.take(alone=False) == units[1]
    assert waiting.take(alone=True) == units[0]


def test_when_unit_after_unit_fails_the_job_stops_with_the_cause():
    waiting = UnitQueue(make_units(100), max_attempts=3)
    with pytest.raises(CommitError, match=r"20 failures in a row .* No space left"):
        for _ in range(20):
            waiting.failed(waiting.take(alone=True), CommitError("No space left on device"))


def test_failures_with_successes_in_between_do_not_stop_the_job():
    waiting = UnitQueue(make_units(100), max_attempts=3)
    for _ in range(40):
        waiting.failed(waiting.take(alone=True), BOOM)
        waiting.done()


def test_second_attempts_of_bad_units_at_the_end_do_not_stop_the_job():
    waiting = UnitQueue(make_units(19), max_attempts=3)
    failures = []
    while unit := waiting.take(alone=True):
        if failure := waiting.failed(unit, BOOM):
            failures.append(failure)
    assert len(failures) == 19


def test_damaged_shards_do_not_stop_the_job():
    waiting = UnitQueue(make_units(100), max_attempts=1)
    failures = [waiting.failed(waiting.take(alone=True), ShardError("gone")) for _ in range(100)]
    assert all(failures)


def test_workers_that_die_one_after_the_other_stop_the_job():
    waiting = UnitQueue(make_units(100), max_attempts=3)
    with pytest.raises(EngineDead, match="20 failures in a row"):
        for _ in range(20):
            waiting.crashed([waiting.take(alone=True)], DEAD)
