"""Input files that cannot be used, in whole or in part."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from rgpt_batch.errors import ConfigError, ShardError
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.records import Segment, WorkUnit
from rgpt_batch.storage.files import open_version
from tests.jobs import Score, Scored, column_chunk, overwrite
from tests.users import NOBODY, not_root

WritePairs = Callable[..., Path]
COLUMNS = Columns(query_id="query_id", doc_id="doc_id", query="query", document="document")


def _doc_ids(low: int, high: int) -> list[str]:
    return [f"d{i}" for i in range(low, high)]


def _assert_unreadable(scored: Scored, low: int, high: int) -> None:
    """Rows low … high - 1 stand in the output, without ids, without a score."""
    for row in scored.rows[low:high]:
        assert row["rejection"] == "UNREADABLE"
        assert {row["query_id"], row["doc_id"], row["score"], row["num_query_tokens"]} == {None}


# What does not name any file


def test_missing_file_is_named(score_with_fake: Score, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.parquet: no such file or folder"):
        score_with_fake(tmp_path / "nowhere.parquet")


def test_folder_without_parquet_is_named(score_with_fake: Score, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "pairs.csv").write_text("a,b")
    with pytest.raises(ConfigError, match=r"empty: the folder holds no \*\.parquet file"):
        score_with_fake(tmp_path / "empty")


def test_pattern_without_match_is_named(score_with_fake: Score, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pairs-\*\.parquet: no file matches the pattern"):
        score_with_fake(tmp_path / "pairs-*.parquet")


def test_nothing_is_written_when_the_input_is_wrong(score_with_fake: Score, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        score_with_fake(tmp_path / "nowhere.parquet")
    assert list(tmp_path.iterdir()) == []


# What is not Parquet


def test_text_file_is_refused_by_path(score_with_fake: Score, tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.write_text("query_id,doc_id\n1,2\n")
    with pytest.raises(ShardError) as caught:
        score_with_fake(path)
    assert str(caught.value).startswith(f"{path}: not a readable Parquet file: ")
    assert "Write it again, or leave it out of the input." in str(caught.value)


def test_file_of_zero_bytes_is_refused_by_path(score_with_fake: Score, tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    path.touch()
    with pytest.raises(ShardError, match=r"pairs\.parquet: not a readable Parquet file"):
        score_with_fake(path)


def test_truncated_file_is_refused_by_path(score_with_fake: Score, write_pairs: WritePairs) -> None:
    path = write_pairs(100)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ShardError, match=r"pairs\.parquet: not a readable Parquet file"):
        score_with_fake(path)


def test_all_bad_files_are_named_at_once_up_to_ten(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    write_pairs(3, "in/good.parquet")
    for index in range(12):
        (tmp_path / f"in/bad-{index:02d}.parquet").write_text("no")
    with pytest.raises(ShardError) as caught:
        score_with_fake(tmp_path / "in")
    first, *named = str(caught.value).splitlines()
    assert first == "12 of 13 shards cannot be used:"
    assert len(named) == 10
    assert f"{tmp_path}/in/bad-09.parquet" in named[-1]


# Damaged pages


@pytest.mark.parametrize("write_page_checksum", [True, False])
def test_damaged_row_group_is_rejected_and_all_other_rows_are_scored(
    score_with_fake: Score, write_pairs: WritePairs, write_page_checksum: bool
) -> None:
    options = {"row_group_size": 30, "write_page_checksum": write_page_checksum}
    clean = score_with_fake(write_pairs(90, **options), name="clean")
    damaged = write_pairs(90, **options)
    offset, num_bytes = column_chunk(damaged, 1, "document")
    overwrite(damaged, offset, b"\xff" * num_bytes)

    scored = score_with_fake(damaged)

    assert scored.rows[:30] == clean.rows[:30]
    _assert_unreadable(scored, 30, 60)
    assert scored.rows[60:] == clean.rows[60:]
    assert scored.table.num_rows == 90
    assert scored.summary.exit_code == 3
    assert scored.summary.num_rejected == {"UNREADABLE": 30}
    assert "30 rows stand on damaged pages" in scored.summary.problems[0]
    assert not (scored.folder / "_SUCCESS").exists()


def test_one_flipped_bit_is_found_by_the_page_checksum(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs(
        40, row_group_size=20, write_page_checksum=True, compression="none", use_dictionary=False
    )
    offset, num_bytes = column_chunk(path, 0, "document")
    position = offset + num_bytes - 5  # The text of the last row: still valid UTF-8 afterwards.
    overwrite(path, position, bytes([path.read_bytes()[position] ^ 1]))

    scored = score_with_fake(path)

    _assert_unreadable(scored, 0, 20)
    assert scored.column("doc_id")[20:] == _doc_ids(20, 40)
    assert scored.summary.exit_code == 3


@pytest.mark.parametrize("write_page_checksum", [True, False])
@pytest.mark.parametrize("column", ["query_id", "document"])
def test_damaged_file_among_tiny_ones_of_a_unit_costs_its_own_rows_only(
    score_with_fake: Score,
    write_pairs: WritePairs,
    tmp_path: Path,
    write_page_checksum: bool,
    column: str,
) -> None:
    for index in range(5):
        write_pairs(8, f"in/{index}.parquet", write_page_checksum=write_page_checksum)
    clean = score_with_fake(tmp_path / "in", name="clean")
    offset, num_bytes = column_chunk(tmp_path / "in/2.parquet", 0, column)
    overwrite(tmp_path / "in/2.parquet", offset, b"\xff" * num_bytes)

    scored = score_with_fake(tmp_path / "in")

    assert scored.summary.num_units == 1
    assert scored.rows[:16] == clean.rows[:16]
    _assert_unreadable(scored, 16, 24)
    assert scored.rows[24:] == clean.rows[24:]
    assert scored.table.num_rows == 40
    assert scored.summary.exit_code == 3


def test_rows_before_a_damaged_page_are_kept_and_none_comes_twice(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    options = {"data_page_size": 1000, "write_batch_size": 50, "use_dictionary": False}
    clean = score_with_fake(write_pairs(3000, **options), name="clean")
    path = write_pairs(3000, write_page_checksum=True, **options)
    offset, num_bytes = column_chunk(path, 0, "document")
    overwrite(path, offset + num_bytes - 20, b"\xff" * 20)

    scored = score_with_fake(path)

    num_lost = scored.summary.num_rejected["UNREADABLE"]
    assert 50 <= num_lost <= 1024
    assert scored.rows[:-num_lost] == clean.rows[:-num_lost]
    _assert_unreadable(scored, 3000 - num_lost, 3000)


def test_unreadable_rows_keep_their_source_and_get_null_pass_through_columns(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    extra = {"rank": pa.array(range(20)), "tags": pa.array([["x"]] * 20)}
    path = write_pairs(20, extra=extra, row_group_size=10)
    offset, num_bytes = column_chunk(path, 1, "query")
    overwrite(path, offset, b"\xff" * num_bytes)

    scored = score_with_fake(
        path, overrides=("output.source=true", "output.pass_through=[rank, tags]")
    )

    assert scored.column("source_row") == list(range(20))
    assert scored.column("source_file") == [str(path)] * 20
    assert scored.column("rank") == [*range(10)] + [None] * 10
    assert scored.column("tags") == [["x"]] * 10 + [None] * 10


def test_damaged_pass_through_column_costs_the_rows_of_its_row_group(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs(20, extra={"note": pa.array(["n"] * 20)}, row_group_size=10)
    offset, num_bytes = column_chunk(path, 0, "note")
    overwrite(path, offset, b"\xff" * num_bytes)
    assert score_with_fake(path, name="without").summary.exit_code == 0
    with_note = score_with_fake(path, overrides=("output.pass_through=[note]",))
    _assert_unreadable(with_note, 0, 10)
    assert with_note.column("doc_id")[10:] == _doc_ids(10, 20)


# No rows


def test_files_without_rows_give_one_output_file_with_the_schema(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    write_pairs(0, "in/a.parquet")
    write_pairs(0, "in/b.parquet")
    scored = score_with_fake(tmp_path / "in")
    assert scored.summary.exit_code == 0
    assert [path.name for path in scored.folder.glob("part-*")] == ["part-000000.parquet"]
    assert scored.table.num_rows == 0
    assert scored.table.schema.field("score").type == pa.float32()
    assert (scored.folder / "_SUCCESS").exists()


def test_files_without_rows_between_others_change_nothing(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    for name, num_rows in {"a": 0, "b": 3, "c": 0, "d": 2, "e": 0}.items():
        write_pairs(num_rows, f"in/{name}.parquet")
    scored = score_with_fake(tmp_path / "in")
    assert scored.column("doc_id") == ["d0", "d1", "d2", "d0", "d1"]
    assert scored.summary.exit_code == 0


def test_empty_input_with_every_kind_of_extra_column_keeps_the_schema(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    extra = {
        "kind": pa.array([], pa.dictionary(pa.int32(), pa.string())),
        "spans": pa.array([], pa.list_(pa.struct([("low", pa.int32())]))),
    }
    scored = score_with_fake(
        write_pairs(0, extra=extra),
        overrides=(
            "output.pass_through=[kind, spans]",
            "output.source=true",
            "output.query_token_logprobs=true",
        ),
    )
    assert scored.table.schema.field("kind").type == extra["kind"].type
    assert pa.types.is_list(scored.table.schema.field("spans").type)
    assert scored.table.schema.field("source_row").type == pa.int64()


# What was there when the job was planned


def test_a_file_that_may_not_be_read_any_more_is_not_called_missing(
    write_pairs: WritePairs,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(shutil.copy(write_pairs(3), folder))
        segment = Segment(
            path=str(path), version=open_version(str(path))[0], first_row=0, num_rows=3
        )
        unit = WorkUnit(unit_id="000000", segments=(segment,), num_bytes=1)
        path.chmod(0)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, -1)
        with (
            not_root(),
            pytest.raises(ShardError, match=r"denied.*permissions") as caught,
        ):
            list(read_pairs(unit, COLUMNS, source=False))
    assert "Bring the file back" not in str(caught.value)
