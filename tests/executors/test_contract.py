"""What holds for every executor. Workers follow scripts; Ray's live in real actor processes."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from rgpt_batch.errors import CommitError, ConfigError, EngineStartError
from rgpt_batch.executors.base import WAITING_FOR_OTHERS
from rgpt_batch.output import open_store
from rgpt_batch.output.claims import Claims
from rgpt_batch.records import UnitFailure, UnitReport
from tests.executors.background import in_background, wait_for_activity, wait_for_outcomes
from tests.executors.workers import (
    Fault,
    Journal,
    MakeExecutor,
    OverlappingWorker,
    Script,
    ScriptedWorker,
    make_units,
    run,
)


def test_every_unit_is_run_once_and_reported_once(
    executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    units = make_units(10)
    done, failures = run(executor(), units, partial(ScriptedWorker, tmp_path, Script()))
    assert sorted(done) == sorted(journal.units("begin")) == [unit.unit_id for unit in units]
    assert not failures


def test_units_that_other_processes_are_at_are_waited_for(
    executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    store = open_store(str(tmp_path / "out"))
    for unit_id in ("000002", "000003"):
        assert store.claim(f"{unit_id}-0", "run-of-another")
    scoring = executor()
    claims = Claims(store, "run-of-this", 600, dict, lambda unit_ids: None)
    make_worker = partial(ScriptedWorker, tmp_path, Script())
    with claims, in_background(scoring, make_units(6), make_worker, claims) as outcomes:
        wait_for_activity(scoring, WAITING_FOR_OTHERS)
        assert sorted(journal.units("end")) == ["000000", "000001", "000004", "000005"]
        # One is done, the other one is given back.
        store.commit("000002", "attempt", b"rows")
        store.drop_claims(["000003-0"])
        wait_for_outcomes(scoring, outcomes, 5)
    assert sorted(o.unit_id for o in outcomes) == sorted(journal.units("end"))
    assert "000002" not in journal.units("begin")


# Where the engine fails, each of the five rows is tried twice, alone.
@pytest.mark.parametrize(
    ("fault", "num_attempts"), [("raise", 13), ("foreign", 13), ("shard", 3), ("commit", 3)]
)
def test_a_unit_that_raises_is_retried_then_failed_with_its_cause(
    executor: MakeExecutor, fault: Fault, num_attempts: int, tmp_path: Path, journal: Journal
) -> None:
    script = Script(faults={"000001": fault})
    done, failures = run(executor(), make_units(6), partial(ScriptedWorker, tmp_path, script))
    assert sorted(done) == ["000000", "000002", "000003", "000004", "000005"]
    assert list(failures) == ["000001"]
    assert failures["000001"].num_attempts == num_attempts
    assert journal.units("begin").count("000001") == 3
    assert "scripted with unit 000001" in failures["000001"].cause
    assert "\n" not in failures["000001"].cause


def test_an_unforeseen_error_is_reported_with_its_place(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    script = Script(faults={"000000": "raise"})
    _, failures = run(executor(), make_units(1), partial(ScriptedWorker, tmp_path, script))
    assert "ValueError: scripted with unit 000000 (workers.py:" in failures["000000"].cause


def test_a_unit_that_fails_once_is_committed_at_the_second_attempt(
    executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(once={"000002": "raise"})
    done, failures = run(executor(), make_units(4), partial(ScriptedWorker, tmp_path, script))
    assert len(done) == 4 and not failures
    assert journal.units("begin").count("000002") == 2


def test_a_report_counts_the_attempts_and_a_failure_has_its_time(
    executor: MakeExecutor, tmp_path: Path
) -> None:
    script = Script(once={"000002": "raise"}, faults={"000003": "raise"})
    begin = time.time()
    with executor() as running:
        outcomes = list(running.run(make_units(4), partial(ScriptedWorker, tmp_path, script)))
    reports = {o.unit_id: o.num_attempts for o in outcomes if isinstance(o, UnitReport)}
    assert reports == {"000000": 1, "000001": 1, "000002": 2}
    (failure,) = (o for o in outcomes if isinstance(o, UnitFailure))
    assert failure.failed_at is not None
    assert begin <= failure.failed_at <= time.time()


def test_max_attempts_is_respected(
    executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    script = Script(faults={"000000": "commit"})
    _, failures = run(
        executor(max_attempts=1), make_units(2), partial(ScriptedWorker, tmp_path, script)
    )
    assert failures["000000"].num_attempts == 1
    assert journal.units("begin").count("000000") == 1


def test_reading_scoring_and_committing_of_three_units_overlap(executor: MakeExecutor) -> None:
    units = make_units(9)
    done, failures = run(executor(), units, partial(OverlappingWorker, len(units)))
    assert sorted(done) == [unit.unit_id for unit in units]
    assert not failures


def test_no_more_units_are_in_flight_than_allowed(
    executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    run(executor(units_in_flight=1), make_units(5), partial(ScriptedWorker, tmp_path, Script()))
    begins, ends = journal.units("begin"), journal.units("end")
    assert begins == ends == sorted(begins)


@pytest.mark.parametrize(
    ("fault", "expected", "num_starts"),
    [
        ("start-error", "scripted at start", {"local": 1, "ray": 3}),
        ("foreign", "a worker cannot start: Unpicklable: scripted", {"local": 1, "ray": 3}),
    ],
)
def test_an_engine_that_never_starts_ends_the_job_with_its_cause(
    executor: MakeExecutor,
    fault: Fault,
    expected: str,
    num_starts: dict[str, int],
    tmp_path: Path,
    journal: Journal,
    request: pytest.FixtureRequest,
) -> None:
    make_worker = partial(ScriptedWorker, tmp_path, Script(every_start=fault))
    with pytest.raises(EngineStartError, match=expected):
        run(executor(), make_units(3), make_worker)
    assert len(journal.events("start")) == num_starts[request.node.callspec.params["executor"]]
    assert not journal.events("begin")


def test_a_wrong_configuration_that_the_worker_finds_is_not_tried_again(
    executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    make_worker = partial(ScriptedWorker, tmp_path, Script(every_start="config"))
    with pytest.raises(ConfigError, match="scripted at start 1"):
        run(executor(), make_units(3), make_worker)
    assert len(journal.events("start")) == 1


def test_a_storage_that_takes_nothing_ends_the_job_before_all_units_are_scored(
    executor: MakeExecutor, tmp_path: Path, journal: Journal
) -> None:
    units = make_units(60)
    faults: dict[str, Fault] = {unit.unit_id: "commit" for unit in units}
    with pytest.raises(CommitError, match=r"20 failures in a row .* scripted with unit"):
        run(executor(), units, partial(ScriptedWorker, tmp_path, Script(faults=faults)))
    assert len(set(journal.units("begin"))) < 30
