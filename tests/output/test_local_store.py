"""The output folder on disk: atomic, first writer wins, and nothing that is not ours is touched.

Crashes and races are real: processes of their own, stopped at an exact system call by an audit
hook (PEP 578) and killed with SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import CommitError, ManifestMismatch
from rgpt_batch.output import LocalStore
from tests.output.tables import FILE, OTHER, OTHER_FILE, TABLE, manifest, success
from tests.users import not_root

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "out"))


def _files(folder: str | Path) -> list[str]:
    root = Path(folder)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# Crashes

_COMMIT = """
import os, signal, sys
from rgpt_batch.output import LocalStore
from tests.output.tables import FILE

store = LocalStore(sys.argv[1])
event_to_die_at = sys.argv[2]

def hook(event, arguments):
    if event == event_to_die_at:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
store.commit("000000", "crashing", FILE)
"""


def _commit_and_die(output: str, event: str) -> None:
    done = subprocess.run([sys.executable, "-c", _COMMIT, output, event], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_crash_before_the_link_leaves_nothing_visible_and_the_unit_can_be_committed(
    store: LocalStore,
) -> None:
    _commit_and_die(store.location, "os.link")
    assert store.committed() == {}
    assert _files(store.location) == ["_rgpt/staging/part-000000.parquet.crashing"]

    assert store.commit("000000", "second", OTHER_FILE) is True
    assert pq.read_table(store.committed()["000000"].path).equals(OTHER)


def test_crash_after_the_link_leaves_the_unit_committed(store: LocalStore) -> None:
    _commit_and_die(store.location, "os.remove")
    assert pq.read_table(store.committed()["000000"].path).equals(TABLE)
    assert store.commit("000000", "second", OTHER_FILE) is False
    assert pq.read_table(store.committed()["000000"].path).equals(TABLE)


def test_what_a_crash_left_in_staging_of_a_published_unit_goes_with_success(
    store: LocalStore,
) -> None:
    _commit_and_die(store.location, "os.link")
    store.commit("000000", "second", FILE)
    store.write_success(success(store))
    assert _files(store.location) == ["_SUCCESS", "part-000000.parquet"]


def test_all_else_goes_from_staging_when_it_is_a_day_old(store: LocalStore) -> None:
    store.commit("000000", "attempt", FILE)
    staging = Path(store.location, "_rgpt/staging")
    names = {
        "status.json.old": "status.json.new",
        "joining-old/shards/a.parquet": "joining-new/shards/a.parquet",
    }
    for name in (*names, *names.values()):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_text("left behind")
    for path in sorted(staging.rglob("*"), reverse=True):
        if "old" in str(path.relative_to(staging)):
            os.utime(path, (path.stat().st_mtime - 25 * 3600,) * 2)
    # A folder in which something is still being written.
    os.utime(staging / "joining-new", (0, 0))
    store.write_success(success(store))
    assert _files(staging) == sorted(names.values())


_RACE = """
import sys
import pyarrow as pa
from rgpt_batch.output import LocalStore
from tests.output.tables import parquet

def hook(event, arguments):
    if event == "os.link":
        print("at the link", flush=True)
        sys.stdin.readline()

sys.addaudithook(hook)
content = parquet(pa.table({"doc_id": [sys.argv[2]]}))
won = LocalStore(sys.argv[1]).commit("000000", sys.argv[2], content)
print(won, flush=True)
"""


_PAUSE = """
import sys
from rgpt_batch.output import LocalStore
from tests.output.tables import OTHER_FILE

def hook(event, arguments):
    if event == sys.argv[2]:
        print("there", flush=True)
        sys.stdin.readline()

store = LocalStore(sys.argv[1])
sys.addaudithook(hook)
print(eval(sys.argv[3]), flush=True)
"""


def _while_paused(store: LocalStore, event: str, call: str, meanwhile: Callable[[], None]) -> str:
    """Stop another process at a system call, do something, and let it go on; returns its answer."""
    with subprocess.Popen(
        [sys.executable, "-c", _PAUSE, store.location, event, call],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        meanwhile()
        return process.communicate("go\n", timeout=60)[0].strip()


def test_a_record_that_another_run_is_writing_survives_a_success(store: LocalStore) -> None:
    store.commit("000000", "attempt", FILE)
    answer = _while_paused(
        store,
        "os.rename",
        'store.write_status({"state": "running"})',
        lambda: store.write_success(success(store)),
    )
    assert answer == "None"
    assert store.read_status() == {"state": "running"}
    assert _files(store.location) == ["_SUCCESS", "_rgpt/status.json", "part-000000.parquet"]


def test_an_attempt_whose_staged_file_was_cleared_away_finds_its_unit_published(
    store: LocalStore,
) -> None:
    def complete() -> None:
        store.commit("000000", "first", FILE)
        store.write_success(success(store))

    answer = _while_paused(
        store, "os.link", 'store.commit("000000", "second", OTHER_FILE)', complete
    )
    assert answer == "False"
    assert pq.read_table(store.committed()["000000"].path).equals(TABLE)
    assert _files(store.location) == ["_SUCCESS", "part-000000.parquet"]


def test_of_two_processes_that_commit_at_the_same_moment_exactly_one_wins(
    store: LocalStore,
) -> None:
    racers = {
        name: subprocess.Popen(
            [sys.executable, "-c", _RACE, store.location, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for name in ("one", "two", "three")
    }
    for racer in racers.values():
        assert racer.stdout is not None
        assert racer.stdout.readline() == "at the link\n"
    for racer in racers.values():
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = {name: racer.communicate(timeout=60)[0].strip() for name, racer in racers.items()}

    assert sorted(answers.values()) == ["False", "False", "True"]
    (winner,) = (name for name, answer in answers.items() if answer == "True")
    table = pq.read_table(store.committed()["000000"].path)
    assert table["doc_id"].to_pylist() == [winner]
    assert _files(store.location) == ["part-000000.parquet"]


# Places that cannot be written


def test_folder_that_is_a_file_gives_a_commit_error_with_path_and_advice(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    store = LocalStore(str(tmp_path / "out"))
    for write in (
        lambda: store.commit("000000", "attempt", FILE),
        lambda: store.save_manifest(manifest()),
        lambda: store.write_success(success(store)),
        lambda: store.write_run("run", {}),
        lambda: store.write_status({}),
    ):
        with pytest.raises(CommitError) as caught:
            write()
        assert str(caught.value).startswith(f"{tmp_path}/out/")
        assert "cannot be written" in str(caught.value)
        assert "Check space and permissions" in str(caught.value)
    assert (tmp_path / "out").read_text() == "in the way"


def test_staging_folder_that_is_a_file_gives_a_commit_error_and_publishes_nothing(
    store: LocalStore,
) -> None:
    Path(store.location, "_rgpt").mkdir(parents=True)
    Path(store.location, "_rgpt/staging").write_text("in the way")
    with pytest.raises(CommitError, match=r"part-000000\.parquet: cannot be written"):
        store.commit("000000", "attempt", FILE)
    assert store.committed() == {}


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder in which this user, for the time of the test not root, may not write."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o555)
    try:
        with not_root():
            yield root
    finally:
        root.chmod(0o755)
        shutil.rmtree(root)


def test_folder_without_write_permission_gives_a_commit_error(read_only_folder: Path) -> None:
    store = LocalStore(str(read_only_folder / "out"))
    with pytest.raises(CommitError, match=r"Permission denied.*Check space and permissions"):
        store.save_manifest(manifest())
    with pytest.raises(CommitError, match="Permission denied"):
        store.commit("000000", "attempt", FILE)


# Links that lead elsewhere


@pytest.mark.parametrize("name", ["", "staging", "runs", "failed", "claims", "processes", "begun"])
def test_folder_that_is_a_link_to_elsewhere_is_refused_and_nothing_is_written_there(
    store: LocalStore, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "runs").mkdir(parents=True)
    (elsewhere / "runs" / "theirs.json").write_text("{}")
    link = Path(store.location, "_rgpt", name)
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    for use in (store.load_manifest, store.clear):
        with pytest.raises(ManifestMismatch, match=f"{link}: a symbolic link, expected a folder"):
            use()
    assert _files(elsewhere) == ["runs/theirs.json"]


@pytest.mark.parametrize("target", ["part-000001.parquet", "/nowhere"])
def test_part_that_is_a_link_is_refused(store: LocalStore, target: str) -> None:
    store.commit("000001", "attempt", FILE)
    link = Path(store.location, "part-000000.parquet")
    link.symlink_to(target)
    with pytest.raises(ManifestMismatch, match=f"{link}: a symbolic link, expected a file"):
        store.committed()


# Records and clearing


def test_folder_where_only_planning_crashed_can_be_used(store: LocalStore) -> None:
    Path(store.location, "_rgpt/staging").mkdir(parents=True)
    assert store.load_manifest() is None


def test_clear_of_a_folder_that_does_not_exist_does_nothing(store: LocalStore) -> None:
    store.clear()
    assert not Path(store.location).exists()


def test_crash_while_clearing_leaves_no_success_beside_missing_parts(store: LocalStore) -> None:
    store.save_manifest(manifest())
    store.commit("000000", "attempt", FILE)
    store.commit("000001", "attempt", FILE)
    store.write_success(success(store))
    script = """
import os, signal, sys
from rgpt_batch.output import LocalStore
store = LocalStore(sys.argv[1])
removed = []
def hook(event, arguments):
    if event == "os.remove":
        if len(removed) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        removed.append(arguments)
sys.addaudithook(hook)
store.clear()
"""
    done = subprocess.run([sys.executable, "-c", script, store.location], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not store.listing().is_declared
    assert list(store.committed()) == ["000001"]
    assert store.load_manifest() == manifest()


def test_crash_at_any_moment_of_clearing_leaves_the_plan_or_nothing_of_the_job(
    store: LocalStore,
) -> None:
    script = """
import os, signal, sys
from rgpt_batch.output import LocalStore
store = LocalStore(sys.argv[1])
def hook(event, arguments):
    if event == "os.remove" and "plan-" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
store.clear()
"""
    store.save_manifest(manifest())
    store.commit("000000", "attempt", FILE)
    store.write_run("run", {})
    store.write_status({})
    done = subprocess.run([sys.executable, "-c", script, store.location], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert _files(store.location) == [f"_rgpt/plan-{'f' * 16}.json"]
    store.clear()
    assert _files(store.location) == []
