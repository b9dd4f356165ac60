"""Processes that share an output folder, on a disk and on S3. Some 4 s for all."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Set
from functools import partial
from pathlib import Path

import pytest

from rgpt_batch.errors import Interrupted
from rgpt_batch.output import LocalStore, Store, open_store
from rgpt_batch.output.claims import Claims
from tests.executors.workers import make_units
from tests.output.tables import FILE, manifest, success

DEADLINE_SECONDS = 180.0
UNIT = "000000"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "out"))
    return open_store(f"s3://{request.getfixturevalue('bucket')}/out")


def claims(store: Store, name: str, *, timeout_seconds: float = 600.0) -> Claims:
    def see(unit_ids: Set[str]) -> None:
        pass

    return Claims(store, name, timeout_seconds, dict, see)


def wait_for(condition: Callable[[], object], one: Claims) -> None:
    """Let a process look until something is so."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        one.look()
        time.sleep(0.02)


def test_a_unit_belongs_to_the_process_that_claims_it_first(store: Store) -> None:
    with claims(store, "run-1") as first, claims(store, "run-2") as second:
        assert first.take(UNIT)
        # The second one has not looked since.
        assert not second.take(UNIT)
        assert first.take(UNIT)
    with claims(store, "run-3") as third:
        assert third.take(UNIT)


@pytest.mark.parametrize("of_another", [False, True])
def test_a_claim_that_is_being_made_when_a_signal_comes_is_given_back(
    tmp_path: Path, of_another: bool
) -> None:
    class SignalAfterClaim(LocalStore):
        """The signal comes when the claim is written, and before the process knows."""

        def claim(self, name: str, owner: str) -> bool:
            if of_another:
                assert super().claim(name, "run-2")
            assert super().claim(name, owner) != of_another
            raise Interrupted(signal.SIGTERM)

    store = SignalAfterClaim(str(tmp_path / "out"))
    with pytest.raises(Interrupted), claims(store, "run-1") as one:
        one.take(UNIT)
    assert len(store.claims()) == of_another


def test_a_process_that_joins_late_leaves_the_units_of_others_alone(store: Store) -> None:
    with claims(store, "run-1") as first:
        assert first.take(UNIT)
        with claims(store, "run-2") as second:
            assert second.num_processes == 2
            assert not second.is_free(UNIT) and not second.is_abandoned(UNIT)
            assert not second.take(UNIT)


def test_units_of_a_process_that_was_killed_go_to_one_other(store: Store) -> None:
    store.write_process("run-1", {"sign": 1})
    assert store.claim(f"{UNIT}-0", "run-1")
    with (
        claims(store, "run-2", timeout_seconds=0.5) as second,
        claims(store, "run-3", timeout_seconds=0.5) as third,
    ):
        for one in (second, third):
            wait_for(partial(one.is_abandoned, UNIT), one)
        # The dead one is not counted any more.
        wait_for(lambda: second.num_processes == 2, second)
        assert second.take(UNIT)
        assert not third.take(UNIT)
        wait_for(lambda: not third.is_free(UNIT), third)
        # It comes back to life and does not know.
        assert not store.claim(f"{UNIT}-1", "run-1")


def test_what_a_process_has_not_finished_is_free_when_it_ends(store: Store) -> None:
    with claims(store, "run-2") as second:
        with claims(store, "run-1") as first:
            assert first.take("000000") and first.take("000001")
            assert store.commit("000001", "a", FILE)
        wait_for(lambda: second.is_over("000001"), second)
        assert second.is_free("000000") and second.take("000000")
        assert second.num_processes == 1
    assert store.claims() == {"000001-0"}
    assert store.processes() == {}


def test_nobody_waits_for_a_unit_that_has_failed_and_the_next_process_tries_it_again(
    store: Store,
) -> None:
    with claims(store, "run-2") as second:
        with claims(store, "run-1") as first:
            assert first.take(UNIT)
            first.give_up(UNIT)
        wait_for(lambda: second.is_over(UNIT), second)
    with claims(store, "run-3") as third, claims(store, "run-4") as fourth:
        assert third.is_free(UNIT) and third.take(UNIT)
        assert not fourth.take(UNIT)
        wait_for(lambda: not fourth.is_free(UNIT), fourth)
        assert not fourth.is_over(UNIT)
        third.give_up(UNIT)
        wait_for(lambda: fourth.is_over(UNIT), fourth)


@pytest.mark.parametrize("is_complete", [True, False])
def test_one_process_reads_all_files_at_the_end_and_the_others_wait(
    store: Store, is_complete: bool
) -> None:
    store.save_manifest(manifest())
    assert store.commit(UNIT, "a", FILE)
    with claims(store, "run-1") as first, claims(store, "run-2") as second:
        first.wait_for_ending()
        waiting = threading.Thread(target=second.wait_for_ending)
        waiting.start()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while second.is_free("ending"):
            assert waiting.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)
        assert waiting.is_alive()
        if is_complete:
            store.write_success(success(store))
        first.end(is_complete=is_complete)
        waiting.join(DEADLINE_SECONDS)
        assert not waiting.is_alive()
        second.end(is_complete=is_complete)
    assert store.processes() == {}
    assert len(store.claims()) == (0 if is_complete else 2)


def test_each_process_has_an_order_of_its_own(store: Store) -> None:
    units = make_units(40)
    orders = [claims(store, name).in_own_order(units) for name in ("run-1", "run-2", "run-1")]
    assert orders[0] == orders[2] != orders[1]
    assert all(
        sorted(unit.unit_id for unit in order) == [u.unit_id for u in units] for order in orders
    )
