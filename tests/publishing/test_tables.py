"""Every kind of table: what readers find after publishing, again, and something else."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from rgpt_batch.errors import ConfigError, ShardError
from tests.conftest import ROOT, RunCli
from tests.jobs import Score, overwrite
from tests.publishing.outputs import FINGERPRINT, rows, write_output
from tests.publishing.tables import KINDS, Target, log_entries

OTHER = "fedcba9876543210"


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    folder = tmp_path / "a lake"
    folder.mkdir()
    return Target(kind=request.param, folder=folder)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "scored"
    write_output(str(folder), rows(0, 500), rows(500, 300))
    return folder


def test_readers_find_every_row_and_column(target: Target, output: Path) -> None:
    summary = target.publish(output, date="2026-11-27")
    assert (summary.num_rows, summary.table.change) == (800, "published")
    expected = pa.concat_tables([rows(0, 500), rows(500, 300)]).sort_by("doc_id")
    found = target.rows()
    assert set(found.column_names) == {*expected.column_names, "date", "fingerprint"}
    assert found.select(expected.column_names).cast(expected.schema).equals(expected)
    assert set(found["date"].to_pylist()) == {"2026-11-27"}
    assert set(found["fingerprint"].to_pylist()) == {FINGERPRINT}


def test_publishing_twice_is_publishing_once(target: Target, output: Path) -> None:
    first = target.publish(output)
    files = target.files()
    again = target.publish(output)
    assert again.table.change == "unchanged"
    assert again.table.state == first.table.state
    assert target.files() == files
    assert sum(target.counts().values()) == 800


def test_outputs_of_several_jobs_stand_side_by_side(
    target: Target, output: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    write_output(str(other), rows(0, 50), fingerprint=OTHER)
    target.publish(output, date="2026-11-26")
    assert target.publish(other, date="2026-11-27").table.change == "published"
    assert target.publish(output, date="2026-11-26").table.change == "unchanged"
    found = target.rows("doc_id, date, fingerprint")
    assert found.num_rows == 850
    assert found.filter(pa.compute.equal(found["date"], "2026-11-27")).num_rows == 50


def test_an_output_that_has_changed_replaces_its_rows(target: Target, tmp_path: Path) -> None:
    """Rows that once killed the engine may be scored later: same job, other files."""
    output, other = tmp_path / "scored", tmp_path / "other"
    write_output(str(output), rows(0, 500), rows(500, 300))
    write_output(str(other), rows(0, 50), fingerprint=OTHER)
    target.publish(output)
    target.publish(other)
    write_output(str(output), rows(0, 500), rows(500, 300, shift=1.0))
    if target.kind == "parquet":
        # Files cannot be exchanged in one step.
        with pytest.raises(ConfigError, match=r"another state .* delete this folder"):
            target.publish(output)
        assert sum(target.counts().values()) == 850
        return
    assert target.publish(output).table.change == "replaced"
    assert target.publish(output).table.change == "unchanged"
    expected = pa.concat_tables([rows(0, 500), rows(500, 300, shift=1.0)]).sort_by("doc_id")
    found = target.rows()
    ours = found.filter(pa.compute.equal(found["fingerprint"], FINGERPRINT))
    assert ours["score"].to_pylist() == expected["score"].to_pylist()
    assert found.num_rows == 850


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_rows_that_were_deleted_from_the_table_are_published_again(
    kind: str, output: Path, tmp_path: Path
) -> None:
    """The table's memory of a publication outlives its rows."""
    target = Target(kind=kind, folder=tmp_path)
    target.publish(output)
    if kind == "delta":
        DeltaTable(tmp_path / "table").delete(f"fingerprint = '{FINGERPRINT}'")
    else:
        target.catalog().load_table("scores.table").delete(f"fingerprint = '{FINGERPRINT}'")
    assert target.counts() == {}
    assert target.publish(output).table.change == "published"
    assert sum(target.counts().values()) == 800


def test_snapshots_that_expired_do_not_double_rows(output: Path, tmp_path: Path) -> None:
    target = Target(kind="iceberg", folder=tmp_path)
    target.publish(output)
    table = target.catalog().load_table("scores.table")
    published = table.current_snapshot()
    assert published is not None
    table.append(
        rows_of_table(target)
        .slice(0, 1)
        .set_column(
            rows_of_table(target).column_names.index("fingerprint"),
            "fingerprint",
            pa.array([OTHER]),
        )
    )
    table.maintenance.expire_snapshots().by_id(published.snapshot_id).commit()
    target.publish(output)
    found = target.rows("doc_id, fingerprint")["fingerprint"].to_pylist()
    assert (found.count(FINGERPRINT), found.count(OTHER)) == (800, 1)


def rows_of_table(target: Target) -> pa.Table:
    table: pa.Table = target.catalog().load_table("scores.table").scan().to_arrow()
    return table


@pytest.fixture(scope="module")
def many_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of 30 files, 300,000 rows."""
    output = tmp_path_factory.mktemp("many") / "scored"
    write_output(str(output), *(rows(i * 10_000, 10_000) for i in range(30)))
    return output


def test_files_have_about_the_size_that_was_asked_for(target: Target, many_files: Path) -> None:
    """Many small files of an output become few of the table."""
    mib = 2**20
    target.publish(many_files, target_bytes=mib)
    sizes = sorted(Path(file).stat().st_size for file in target.files())
    # Delta's writer counts pages of a mebibyte that are not compressed yet.
    least = 0.1 if target.kind == "delta" else 0.7
    assert 2 <= len(sizes) < 15
    assert all(least * mib < size < 1.5 * mib for size in sizes[1:])
    assert sum(target.counts().values()) == 300_000
    groups = [pq.read_metadata(file).num_row_groups for file in target.files()]
    assert max(groups) < 30


def test_one_file_where_the_output_is_small(target: Target, tmp_path: Path) -> None:
    output = tmp_path / "scored"
    write_output(str(output), *(rows(i * 10, 10) for i in range(20)))
    assert target.publish(output).table.num_files == 1
    assert len(target.files()) == 1


def test_a_table_with_other_columns_is_refused(
    target: Target, output: Path, tmp_path: Path
) -> None:
    target.publish(output)
    before = target.files()
    other = tmp_path / "other"
    write_output(str(other), rows(0, 5, extra={"bm25": [1.5] * 5}), fingerprint=OTHER)
    with pytest.raises(ConfigError, match=r"does not fit the output: .*bm25"):
        target.publish(other)
    assert target.files() == before
    with pytest.raises(ConfigError, match=r"does not fit the output: .*date"):
        target.publish(output, date="2026-11-27")
    assert target.files() == before


def test_a_column_of_another_type_is_refused(target: Target, tmp_path: Path) -> None:
    whole, text = tmp_path / "whole", tmp_path / "text"
    write_output(str(whole), rows(0, 3, extra={"rank": [1, 2, 3]}))
    write_output(str(text), rows(0, 3, extra={"rank": ["1", "2", "3"]}), fingerprint=OTHER)
    target.publish(whole)
    with pytest.raises(ConfigError, match="rank"):
        target.publish(text)


def test_columns_whose_files_differ_get_a_type_that_holds_both(
    target: Target, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    small = {"rank": pa.array([1, 2, 3], pa.int32()), "language": words}
    large = {"rank": pa.array([2**40], pa.int64()), "language": pa.array(["c"])}
    write_output(str(output), rows(0, 3, extra=small), rows(3, 1, extra=large))
    target.publish(output)
    found = target.rows("doc_id, rank, language, fingerprint")
    assert found["rank"].to_pylist() == [1, 2, 3, 2**40]
    assert found["language"].to_pylist() == ["a", "b", "a", "c"]


def test_only_a_complete_output_is_published(target: Target, tmp_path: Path) -> None:
    output = tmp_path / "scored"
    write_output(str(output), rows(0, 10), rows(10, 10), finish=False)
    with pytest.raises(ConfigError, match=r"has not finished.*Only complete outputs"):
        target.publish(output)
    write_output(str(output), rows(0, 10), rows(10, 10))
    (output / "part-000001.parquet").unlink()
    with pytest.raises(ConfigError, match="out of date"):
        target.publish(output)
    assert target.files() == []


def test_bytes_that_success_does_not_name_are_not_published(target: Target, output: Path) -> None:
    overwrite(output / "part-000001.parquet", 200, b"\x00\xff\x00\xff")
    with pytest.raises(ShardError, match=r"part-000001.parquet: its bytes are not those"):
        target.publish(output)
    assert target.files() == []


def test_two_publications_at_once_give_each_row_once(
    target: Target, output: Path, tmp_path: Path
) -> None:
    """Six times, since threads meet where they like; every second table exists before."""
    other = tmp_path / "other"
    write_output(str(other), rows(0, 50), fingerprint=OTHER)
    target.prepare()
    for number in range(6):
        table = replace(target, name=f"table{number}")
        before = {OTHER: 50} if number % 2 else {}
        if before:
            table.publish(other)
        start = threading.Barrier(2)

        def publish(table: Target = table, start: threading.Barrier = start) -> str:
            start.wait()
            return table.publish(output).table.change

        with ThreadPoolExecutor(2) as pool:
            changes = [future.result() for future in [pool.submit(publish) for _ in range(2)]]
        assert sorted(changes) == ["published", "unchanged"]
        assert table.counts() == {**before, FINGERPRINT: 800}


def test_delta_refuses_a_second_commit_of_the_same_rows(output: Path, tmp_path: Path) -> None:
    """What two publications at once count on."""
    target = Target(kind="delta", folder=tmp_path)
    target.publish(output)
    transactions = [entry["txn"] for entry in log_entries(target) if "txn" in entry]
    assert [entry["appId"] for entry in transactions] == [f"rgpt-batch:{FINGERPRINT}"]
    metadata = [entry["commitInfo"] for entry in log_entries(target) if "commitInfo" in entry]
    assert metadata[-1]["rgpt_batch"]["fingerprint"] == FINGERPRINT


def test_a_delta_table_of_others_keeps_its_partitions(output: Path, tmp_path: Path) -> None:
    target = Target(kind="delta", folder=tmp_path)
    there = rows(0, 0).append_column("fingerprint", pa.array([], pa.string()))
    write_deltalake(tmp_path / "table", there, partition_by=["query_id"])
    target.publish(output)
    table = DeltaTable(tmp_path / "table")
    assert table.metadata().partition_columns == ["query_id"]
    assert len(table.file_uris()) == 7
    assert table.count() == 800


def test_a_folder_of_something_else_is_refused(output: Path, tmp_path: Path) -> None:
    target = Target(kind="parquet", folder=tmp_path)
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt"):
        target.publish(output)


@pytest.mark.parametrize("kind", ["delta", "parquet"])
def test_a_table_inside_of_the_output_is_refused(kind: str, output: Path) -> None:
    target = Target(kind=kind, folder=output)
    with pytest.raises(ConfigError, match="lies in the other"):
        target.publish(output)


def test_a_namespace_that_is_missing_is_named(output: Path, tmp_path: Path) -> None:
    from rgpt_batch.publishing.publish import publish_output

    target = Target(kind="iceberg", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"no namespace scores.*create namespace scores"):
        publish_output(
            output,
            target.to,
            partitions={},
            target_bytes=2**20,
            catalog_properties=target.properties,
        )


def test_the_output_of_a_real_job_is_published_by_the_command(
    score_with_fake: Score, write_pairs: object, run_cli: RunCli, tmp_path: Path
) -> None:
    """The command as a process, with the catalog's settings in its options. Takes some 8 s."""
    scored = score_with_fake(write_pairs(40))  # type: ignore[operator]
    target = Target(kind="iceberg", folder=tmp_path)
    target.catalog()
    properties = [f"--catalog-property={k}={v}" for k, v in target.properties.items()]
    done = run_cli("publish", scored.folder, "--to", target.to, *properties)
    assert done.returncode == 0, done.stderr
    assert "40, published in 1 files" in done.stdout
    # A table outlives the job: nobody who reads it sees which engine wrote it.
    assert "the fake engine wrote these scores" in done.stderr
    found = target.rows("doc_id, fingerprint, score")
    wanted = dict(zip(scored.column("doc_id"), scored.column("score"), strict=True))
    assert dict(zip(found["doc_id"].to_pylist(), found["score"].to_pylist(), strict=True)) == wanted
    again = run_cli("publish", scored.folder, "--to", target.to, *properties, "--json")
    assert json.loads(again.stdout)["table"]["change"] == "unchanged"


@pytest.mark.parametrize(("package", "kind"), [("deltalake", "delta"), ("pyiceberg", "iceberg")])
def test_a_library_that_is_missing_is_named_with_its_remedy(
    package: str, kind: str, output: Path
) -> None:
    code = f"""
import sys
sys.modules["{package}"] = None
sys.argv = ["rgpt-batch", "publish", {str(output)!r}, "--to", "{kind}:lake.scores.table"]
from rgpt_batch.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert 'pip install "rgpt-batch[lake]"' in done.stderr
    assert "Traceback" not in done.stderr
