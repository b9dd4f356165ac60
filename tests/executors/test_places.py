from __future__ import annotations

from typing import Any

from rgpt_batch.executors.places import Place, Places
from rgpt_batch.executors.resources import WorkerResources

NODES = {"a": {"CPU": 8.0, "GPU": 4.0}, "b": {"CPU": 8.0, "GPU": 4.0}}


def places(gpus: Any, cpus: Any = 1.0) -> Any:
    return Places(WorkerResources(num_workers=8, gpus=gpus, cpus=cpus))


def fail(chosen: Any, node_id: Any, *gpus: Any, times: Any = 3) -> Any:
    place = Place(node_id=node_id, gpus=gpus)
    for _ in range(times):
        chosen.failed(place)
    return place


def test_a_place_is_bad_after_three_failures_in_a_row_and_good_once_an_engine_starts() -> None:
    chosen = places(gpus=1)
    place = fail(chosen, "a", "0", times=2)
    assert not chosen.is_bad(place)
    chosen.works(place)
    fail(chosen, "a", "0", times=2)
    assert not chosen.is_bad(place)
    fail(chosen, "a", "0", times=1)
    assert chosen.is_bad(place)
    assert not chosen.is_bad(Place(node_id="a", gpus=("1",)))


def test_a_bad_gpu_takes_its_own_room_alone() -> None:
    chosen = places(gpus=1)
    assert chosen.room(NODES) == 8
    fail(chosen, "a", "0")
    assert chosen.room(NODES) == 7
    assert chosen.bad_nodes() == []


def test_workers_that_would_share_a_bad_gpu_have_no_room_there() -> None:
    chosen = places(gpus=0.5)
    assert chosen.room(NODES) == 16
    fail(chosen, "a", "0")
    assert chosen.room(NODES) == 14


def test_a_group_of_bad_gpus_takes_the_room_of_one_worker() -> None:
    chosen = places(gpus=2)
    fail(chosen, "a", "0", "1")
    assert chosen.room(NODES) == 3


def test_without_gpus_a_bad_node_has_no_room() -> None:
    chosen = places(gpus=0)
    fail(chosen, "a")
    assert chosen.room(NODES) == 8
    assert chosen.bad_nodes() == ["a"]
    fail(chosen, "b")
    assert chosen.room(NODES) == 0


def test_nodes_that_are_gone_have_no_room() -> None:
    chosen = places(gpus=1)
    fail(chosen, "a", "0")
    assert chosen.room({"b": NODES["b"]}) == 4
    assert chosen.room({}) == 0
