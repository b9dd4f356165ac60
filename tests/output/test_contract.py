"""What holds for every store, wherever it is: a local disk, or S3 as a real server plays it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import ManifestMismatch
from rgpt_batch.output import Store, open_store
from rgpt_batch.records import UnitFailure
from rgpt_batch.storage.files import open_source
from tests.output.tables import FILE, OTHER_FILE, TABLE, manifest, success


@dataclass(frozen=True, kw_only=True)
class Place:
    """A store, and a way around it.

    Attributes:
        put: Writes a file of somebody else below the output folder.
        names: Lists all files below the output folder, by name.
        get: Reads a file below the output folder.
    """

    store: Store
    put: Callable[[str, bytes], None]
    names: Callable[[], list[str]]
    get: Callable[[str], bytes]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "local":
        yield _local_place(tmp_path / "out")
    else:
        yield _s3_place(request.getfixturevalue("s3"), request.getfixturevalue("bucket"))


def _local_place(folder: Path) -> Place:
    def put(name: str, content: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    def names() -> list[str]:
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    return Place(
        store=open_store(str(folder)),
        put=put,
        names=names,
        get=lambda name: (folder / name).read_bytes(),
    )


def _s3_place(s3: Any, bucket: str) -> Place:
    def names() -> list[str]:
        found = s3.list_objects_v2(Bucket=bucket, Prefix="a folder/out/").get("Contents", [])
        return sorted(meta["Key"].removeprefix("a folder/out/") for meta in found)

    def get(name: str) -> bytes:
        content: bytes = s3.get_object(Bucket=bucket, Key=f"a folder/out/{name}")["Body"].read()
        return content

    # Beside it, so that listing too much would show.
    s3.put_object(Bucket=bucket, Key="a folder/output/part-000000.parquet", Body=b"theirs")
    s3.put_object(Bucket=bucket, Key="a folder/out.txt", Body=b"theirs")
    return Place(
        store=open_store(f"s3://{bucket}/a folder/out/"),
        put=lambda name, content: s3.put_object(
            Bucket=bucket, Key=f"a folder/out/{name}", Body=content
        ),
        names=names,
        get=get,
    )


def _rows(store: Store, unit_id: str) -> pa.Table:
    return pq.read_table(open_source(store.committed()[unit_id].path))


# Commits


def test_committed_unit_is_listed_and_readable(place: Place) -> None:
    store = place.store
    assert store.committed() == {}
    assert store.commit("000007", "attempt", FILE) is True
    file = store.committed()["000007"]
    assert file.path == f"{store.location}/part-000007.parquet"
    assert file.size == len(place.get("part-000007.parquet"))
    assert _rows(store, "000007").equals(TABLE)
    assert place.names() == ["part-000007.parquet"]


def test_first_of_two_attempts_wins(place: Place) -> None:
    assert place.store.commit("000000", "first", FILE) is True
    assert place.store.commit("000000", "second", OTHER_FILE) is False
    assert _rows(place.store, "000000").equals(TABLE)
    assert place.names() == ["part-000000.parquet"]


def test_listing_holds_units_in_order_and_nothing_else(place: Place) -> None:
    for unit_id in ("000010", "1000000", "000002"):
        place.store.commit(unit_id, "attempt", FILE)
    for name in ("part-1.parquet", "part-000003.parquet.crc", "xpart-000004.parquet", "_SUCCESS"):
        place.put(name, b"")
    place.put("sub/part-000005.parquet", b"")
    assert list(place.store.committed()) == ["000002", "000010", "1000000"]


# The plan


def test_plan_is_frozen_once_and_loaded_as_it_was(place: Place) -> None:
    store = place.store
    assert not store.has_manifest()
    assert store.load_manifest() is None
    store.save_manifest(manifest())
    assert store.has_manifest()
    assert store.load_manifest() == manifest()
    store.save_manifest(manifest(num_units=2))
    assert store.load_manifest() == manifest()


def test_two_plans_in_one_folder_are_refused(place: Place) -> None:
    place.store.save_manifest(manifest("a" * 16))
    place.store.save_manifest(manifest("b" * 16))
    with pytest.raises(ManifestMismatch, match="holds 2 plans, expected one"):
        place.store.load_manifest()


def test_damaged_plan_is_refused_by_its_path(place: Place) -> None:
    name = f"_rgpt/plan-{'f' * 16}.json"
    place.put(name, manifest().to_json()[:-10])
    with pytest.raises(ManifestMismatch, match=f"/out/{name}: not a plan of this version"):
        place.store.load_manifest()


def test_folder_with_files_but_no_plan_is_not_ours(place: Place) -> None:
    assert place.store.load_manifest() is None
    for name in ("c.txt", "a.txt", "sub/b.txt", "d.txt"):
        place.put(name, b"theirs")
    with pytest.raises(ManifestMismatch, match=r"is not empty \(a\.txt, c\.txt, d\.txt …\)"):
        place.store.load_manifest()


def test_folder_of_runs_without_a_plan_can_be_used(place: Place) -> None:
    place.put("_rgpt/runs/a.json", b"{}")
    assert place.store.load_manifest() is None


# Records


def test_success_status_and_runs_are_read_back(place: Place) -> None:
    store = place.store
    assert store.listing().success is None
    assert store.read_status() is None
    assert store.read_runs() == []
    store.commit("000000", "attempt", FILE)
    declared = success(store)
    store.write_success(declared)
    store.write_status({"state": "running"})
    store.write_status({"state": "complete"})
    store.write_run("20240102T000000-b", {"run_id": "b"})
    store.write_run("20240101T000000-a", {"run_id": "a", "model": "größer"})
    assert store.listing().success == declared
    assert store.listing().problem is None
    assert store.read_status() == {"state": "complete"}
    assert store.read_runs() == [{"run_id": "a", "model": "größer"}, {"run_id": "b"}]


def test_what_runs_have_in_hand_is_written_anew_and_forgotten(place: Place) -> None:
    store = place.store
    assert store.read_begun() == {}
    store.write_begun("run-000001-a", ["000002", "000000"])
    store.write_begun("run-000001-a", ["000002", "000001"])
    store.write_begun("run-000002-b", ["000002"])
    assert store.read_begun() == {"run-000001-a": ["000001", "000002"], "run-000002-b": ["000002"]}
    store.drop_begun(["run-000001-a", "run-000000-unknown"])
    assert store.read_begun() == {"run-000002-b": ["000002"]}
    store.drop_shares()
    assert store.read_begun() == {}


def test_failures_are_kept_until_their_units_are_scored(place: Place) -> None:
    store = place.store
    failures = [
        UnitFailure(unit_id=unit_id, num_rows=3, num_attempts=3, cause="ShardError: gone")
        for unit_id in ("000001", "000002")
    ]
    for failure in failures:
        store.add_failure(failure)
    assert store.read_failures() == failures
    store.drop_failures({"000001", "000003"})
    assert store.read_failures() == failures[1:]
    store.drop_failures({"000002"})
    assert store.read_failures() == []


def test_a_failure_that_only_another_version_understands_is_a_failed_unit_all_the_same(
    place: Place,
) -> None:
    store = place.store
    failure = UnitFailure(unit_id="000001", num_rows=3, num_attempts=3, cause="ShardError: gone")
    place.put("_rgpt/failed/000001.json", json.dumps(asdict(failure) | {"machine": "m1"}).encode())
    place.put("_rgpt/failed/000002.json", b'{"unit": 2, "reasons": []}')
    assert store.read_failures() == [failure]
    assert store.failed_unit_ids() == {"000001", "000002"}
    store.drop_failures(["000000", "000002"])
    assert store.failed_unit_ids() == {"000001"}


def test_a_new_run_comes_after_all_others_whatever_the_clock_said(place: Place) -> None:
    store = place.store
    names = ["20991231T235959999999-ffffffff"]
    for _ in range(11):
        store.write_run(names[-1], {"run_id": names[-1]})
        names.append(store.new_run_id())
    assert [run["run_id"] for run in store.read_runs()] == names[:-1]
    # Another one that began at the same moment.
    assert store.new_run_id()[:10] == names[-1][:10] == "run-000011"
    assert store.new_run_id() != names[-1]


def test_records_hold_no_credentials_of_what_libraries_say(place: Place) -> None:
    cause = "ShardError: https://me:canary@host/a?X-Signature=canary refused"
    hidden = "ShardError: https://***@host/a?*** refused"
    store = place.store
    store.add_failure(UnitFailure(unit_id="000001", num_rows=1, num_attempts=1, cause=cause))
    store.write_status({"state": "running", "activity": cause})
    config = {"protocol": {"template": "see https://host/a?q={query}"}}
    ending = {"failures": ({"cause": cause},), "problems": [cause]}
    store.write_run("run", {"cause": cause, "summary": ending, "config": config})
    assert store.read_failures()[0].cause == hidden
    assert store.read_status() == {"state": "running", "activity": hidden}
    assert store.read_runs() == [
        {
            "cause": hidden,
            "summary": {"failures": [{"cause": hidden}], "problems": [hidden]},
            "config": config,
        }
    ]


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"num_rows"', b"[]", b"\xff\xfe"])
def test_damaged_record_counts_as_absent(place: Place, content: bytes) -> None:
    for name in ("_SUCCESS", "_rgpt/status.json", "_rgpt/runs/a.json"):
        place.put(name, content)
    assert place.store.listing().success is None
    assert place.store.read_status() is None
    assert place.store.listing().problem == (
        "its _SUCCESS is damaged, or of another version of rgpt-batch"
    )
    assert place.store.read_runs() == []


# Success


def _missing(place: Place) -> None:
    # As somebody would who wants these rows to be scored again.
    content = place.get("part-000000.parquet")
    place.store.clear()
    place.put("part-000000.parquet", content)


def _added(place: Place) -> None:
    place.store.commit("000002", "attempt", FILE)


def _replaced(place: Place) -> None:
    place.put("part-000001.parquet", b"other rows")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_missing, "part-000001.parquet is missing"),
        (_added, "part-000002.parquet is not named there"),
        (_replaced, "part-000001.parquet is of another size"),
    ],
)
def test_success_counts_only_while_it_names_exactly_the_files_that_are_there(
    place: Place, change: Callable[[Place], None], problem: str
) -> None:
    store = place.store
    for unit_id in ("000000", "000001"):
        store.commit(unit_id, "attempt", FILE)
    store.write_success(success(store))
    assert store.withdraw_false_success() == store.committed()
    assert store.listing().success is not None
    content = place.get("_SUCCESS")
    change(place)
    place.put("_SUCCESS", content)
    listing = store.listing()
    assert (listing.success, listing.problem) == (None, f"its _SUCCESS is out of date: {problem}")
    assert store.withdraw_false_success() == store.committed()
    assert "_SUCCESS" not in place.names()


def test_success_that_is_not_understood_is_withdrawn(place: Place) -> None:
    place.store.commit("000000", "attempt", FILE)
    place.put("_SUCCESS", b'{"files": 1}')
    assert list(place.store.withdraw_false_success()) == ["000000"]
    assert place.names() == ["part-000000.parquet"]


# Clearing


def test_clear_deletes_what_is_ours_and_nothing_else(place: Place) -> None:
    store = place.store
    store.save_manifest(manifest())
    store.commit("000000", "attempt", FILE)
    store.commit("000001", "attempt", FILE)
    store.write_success(success(store))
    store.write_run("run", {})
    store.add_failure(UnitFailure(unit_id="1", num_rows=1, num_attempts=1, cause="x"))
    theirs = ["notes.txt", "part-00000-spark.parquet", "part-7.parquet", "sub/part-000000.parquet"]
    for name in theirs:
        place.put(name, b"theirs")
    store.clear()
    assert place.names() == theirs
    assert not store.has_manifest()
    assert store.committed() == {}


def test_clear_of_a_folder_that_does_not_exist_does_nothing(place: Place) -> None:
    place.store.clear()
    assert place.store.committed() == {}
