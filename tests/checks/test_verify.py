"""Tampering with an output folder is found, whatever the records say."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rgpt_batch import Verification, verify_output
from rgpt_batch.errors import ConfigError
from rgpt_batch.records import ScorePair
from rgpt_batch.scoring.pair_hash import pair_hash
from tests.jobs import Score, column_chunk, overwrite

WritePairs = Callable[..., Path]
FIX = "Delete the file and run the job again."


@pytest.fixture
def output(score_with_fake: Score, write_pairs: WritePairs) -> Path:
    """Three parts of ten rows; one row is rejected."""
    pairs = [(f"query {i % 4}", f"document {i} of many") for i in range(29)] + [("", "rejected")]
    return score_with_fake(write_pairs(pairs), overrides=("units.max_rows=10",)).folder


def _verify(output: Path, **options: Any) -> Verification:
    return verify_output(output, **options)


def _rewrite(part: Path, change: Callable[[pa.Table], pa.Table], *, record: bool = True) -> None:
    """Write a part file anew, with its footer, and by default fix its checksum in _SUCCESS."""
    table = pq.read_table(part)
    metadata = table.schema.metadata
    pq.write_table(change(table).replace_schema_metadata(metadata), part, write_page_checksum=True)
    if record:
        _record_checksum(part)


def _record_checksum(part: Path) -> None:
    success = json.loads((part.parent / "_SUCCESS").read_text())
    unit_id = part.stem.removeprefix("part-")
    success["files"][unit_id]["sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    (part.parent / "_SUCCESS").write_text(json.dumps(success))


def _with_column(name: str, change: Callable[[pa.ChunkedArray], Any]) -> Callable[..., pa.Table]:
    def apply(table: pa.Table) -> pa.Table:
        field = table.schema.field(name)
        index = table.schema.get_field_index(name)
        return table.set_column(index, field, change(table[name]).cast(field.type))

    return apply


def test_untouched_output_is_well_and_all_of_its_rows_can_be_scored_again(output: Path) -> None:
    result = _verify(output, num_rescored=1000)
    assert result.problems == ()
    assert (result.num_files, result.num_rows) == (3, 30)
    assert 25 < result.num_rescored <= 30
    assert result.max_score_error < 1e-6


def test_every_sampled_row_is_reported(output: Path) -> None:
    said: list[str] = []
    result = _verify(output, num_rescored=7, report=said.append)
    assert said[:2] == ["checking 3 files", "loading the float32 reference"]
    numbers = range(1, result.num_rescored + 1)
    assert said[2:] == [
        f"scored {number} of {result.num_rescored} sampled rows again" for number in numbers
    ]


def test_verifying_changes_nothing(output: Path) -> None:
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    _verify(output, num_rescored=5)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_output_of_rejected_rows_alone_is_well(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    scored = score_with_fake(write_pairs([("", "a"), (None, "b")]))
    assert _verify(scored.folder, num_rescored=5).problems == ()


def test_output_without_rows_is_well(score_with_fake: Score, write_pairs: WritePairs) -> None:
    scored = score_with_fake(write_pairs(0))
    result = _verify(scored.folder, num_rescored=5)
    assert (result.problems, result.num_files, result.num_rescored) == ((), 1, 0)


def test_folder_without_a_job_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no job was planned here; nothing to verify"):
        _verify(tmp_path)


# Files


def test_missing_part_is_found(output: Path) -> None:
    (output / "part-000001.parquet").unlink()
    result = _verify(output)
    assert result.problems == ("part-000001.parquet: missing. Run the job again.",)
    assert (result.num_files, result.num_rows) == (2, 20)


def test_part_that_the_plan_does_not_have_is_found(output: Path) -> None:
    foreign = output / "part-000003.parquet"
    foreign.write_bytes((output / "part-000000.parquet").read_bytes())
    assert _verify(output).problems == (f"{foreign}: not part of this job. Delete it.",)


def test_part_in_the_place_of_another_is_found(output: Path) -> None:
    part = output / "part-000001.parquet"
    part.write_bytes((output / "part-000000.parquet").read_bytes())
    _record_checksum(part)
    problems = _verify(output).problems
    assert f"{part}: its footer names another job or unit. {FIX}" in problems
    assert f"{part}: its ids are not those of the input, in the input's order. {FIX}" in problems


def test_file_of_another_program_in_the_place_of_a_part_is_found(output: Path) -> None:
    part = output / "part-000000.parquet"
    pq.write_table(pa.table({"x": [1]}), part)
    _record_checksum(part)
    (problem,) = _verify(output).problems
    assert problem == f"{part}: not a scored file of rgpt-batch; it has no footer. {FIX}"


def test_truncated_part_is_found(output: Path) -> None:
    part = output / "part-000002.parquet"
    os.truncate(part, part.stat().st_size - 100)
    problems = _verify(output).problems
    assert f"{part}: its checksum differs from _SUCCESS. {FIX}" in problems
    assert any(p.startswith(f"{part}: not a readable Parquet file") for p in problems)


def test_flipped_bit_in_a_page_is_found_even_where_the_record_was_changed_too(output: Path) -> None:
    part = output / "part-000001.parquet"
    offset, num_bytes = column_chunk(part, 0, "score")
    position = offset + num_bytes - 3
    overwrite(part, position, bytes([part.read_bytes()[position] ^ 1]))
    _record_checksum(part)
    (problem,) = _verify(output).problems
    assert problem.startswith(f"{part}: not a readable Parquet file: ")
    assert problem.endswith(FIX)


def test_file_that_was_written_anew_is_found_by_its_checksum(output: Path) -> None:
    part = output / "part-000000.parquet"
    _rewrite(part, lambda table: table, record=False)
    assert _verify(output).problems == (f"{part}: its checksum differs from _SUCCESS. {FIX}",)


# Rows


def test_missing_rows_are_found(output: Path) -> None:
    part = output / "part-000001.parquet"
    _rewrite(part, lambda table: table.slice(0, 9))
    assert _verify(output).problems == (f"{part}: 9 rows, expected 10. {FIX}",)


@pytest.mark.parametrize("column", ["query_id", "doc_id"])
def test_swapped_ids_are_found(output: Path, column: str) -> None:
    part = output / "part-000000.parquet"
    swapped = pa.array([1, 0, *range(2, 10)])
    _rewrite(part, _with_column(column, lambda values: values.take(swapped)))
    assert _verify(output).problems == (
        f"{part}: its ids are not those of the input, in the input's order. {FIX}",
    )


def test_rows_in_another_order_are_found(output: Path) -> None:
    part = output / "part-000000.parquet"
    _rewrite(part, lambda table: table.sort_by([("score", "ascending")]))
    assert any("in the input's order" in problem for problem in _verify(output).problems)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "a score is not finite, or above 0."),
        (float("-inf"), "a score is not finite, or above 0."),
        (0.5, "a score is not finite, or above 0."),
        (None, "a row has both a score and a rejection, or neither."),
    ],
)
def test_value_that_is_no_score_is_found(output: Path, value: float | None, message: str) -> None:
    part = output / "part-000000.parquet"
    _rewrite(
        part,
        _with_column("score", lambda s: pa.array([value, *s.to_pylist()[1:]], pa.float32())),
    )
    assert _verify(output).problems == (f"{part}: {message} {FIX}",)


def test_score_beside_a_rejection_is_found(output: Path) -> None:
    part = output / "part-000002.parquet"
    _rewrite(part, _with_column("score", lambda scores: pc.fill_null(scores, -1.0)))
    (problem,) = _verify(output).problems
    assert problem.startswith(f"{part}: a row has both a score and a rejection")


@pytest.mark.parametrize("row", [0, 9])
@pytest.mark.parametrize("value", [None, b"\0" * 16])
def test_hash_that_is_missing_or_of_other_texts_is_found(
    output: Path, row: int, value: bytes | None
) -> None:
    part = output / "part-000002.parquet"
    assert pq.read_table(part)["rejection"].to_pylist()[9] is not None
    is_right = row == 9 and value is None
    _rewrite(
        part,
        _with_column(
            "pair_hash",
            lambda column: pa.array(
                [value if i == row else h for i, h in enumerate(column.to_pylist())]
            ),
        ),
    )
    expected = () if is_right else (f"{part}: a pair_hash is not that of the input's texts. {FIX}",)
    assert _verify(output).problems == expected


def test_missing_or_retyped_column_is_found(output: Path) -> None:
    first, second = output / "part-000000.parquet", output / "part-000001.parquet"
    _rewrite(first, lambda table: table.drop_columns(["sum_logprob"]))
    _rewrite(
        second,
        lambda table: table.set_column(2, "score", table["score"].cast(pa.float64())),
    )
    assert _verify(output).problems == (
        f"{first}: sum_logprob missing or of another type. {FIX}",
        f"{second}: score missing or of another type. {FIX}",
    )


@pytest.mark.parametrize("change", [0.01, -0.01])
def test_wrong_score_is_found_by_scoring_a_sample_again(output: Path, change: float) -> None:
    part = output / "part-000001.parquet"
    _rewrite(part, _with_column("score", lambda scores: pc.add(scores, change)))
    assert _verify(output).problems == ()
    result = _verify(output, num_rescored=12)
    assert result.problems
    assert all(problem.startswith(f"{part}: row ") for problem in result.problems)
    assert "reference gives" in result.problems[0]
    assert result.max_score_error == pytest.approx(0.01, rel=1e-3)


def test_tolerance_decides_what_counts_as_a_wrong_score(output: Path) -> None:
    part = output / "part-000000.parquet"
    _rewrite(part, _with_column("score", lambda scores: pc.subtract(scores, 0.01)))
    assert _verify(output, num_rescored=30, tolerance=0.02).problems == ()
    assert _verify(output, num_rescored=30, tolerance=0.0).problems


def test_score_of_a_row_that_must_be_rejected_is_found(output: Path) -> None:
    part = output / "part-000002.parquet"

    def invent(table: pa.Table) -> pa.Table:
        table = _with_column("score", lambda scores: pc.fill_null(scores, -1.0))(table)
        table = _with_column("rejection", lambda reasons: pa.nulls(10, pa.string()))(table)
        known = pair_hash(ScorePair(query="", document="rejected"))
        return _with_column(
            "pair_hash", lambda hashes: pa.array([h or known for h in hashes.to_pylist()])
        )(table)

    _rewrite(part, invent)
    problems = _verify(output, num_rescored=500).problems
    assert problems == (f"{part}: row 9 must be rejected.",)


def test_same_seed_samples_the_same_rows(output: Path) -> None:
    _rewrite(
        output / "part-000000.parquet",
        _with_column("score", lambda scores: pc.subtract(scores, 1.0)),
    )
    first, again, other = (_verify(output, num_rescored=6, seed=seed) for seed in (1, 1, 2))
    assert first.problems == again.problems != other.problems


# Records and input


def test_missing_or_damaged_success_is_found(output: Path) -> None:
    success = output / "_SUCCESS"
    content = success.read_bytes()
    success.unlink()
    assert _verify(output).problems == (
        "_SUCCESS: missing; the job has not finished. Run it again.",
    )
    success.write_bytes(content[:-20])
    assert _verify(output).problems == (
        "_SUCCESS: damaged, or of another version of rgpt-batch. Run the job again.",
    )


def test_changed_checksum_in_success_is_found(output: Path) -> None:
    success = json.loads((output / "_SUCCESS").read_text())
    success["files"]["000002"]["sha256"] = "0" * 64
    (output / "_SUCCESS").write_text(json.dumps(success))
    assert _verify(output).problems == (
        f"{output}/part-000002.parquet: its checksum differs from _SUCCESS. {FIX}",
    )


@pytest.mark.parametrize("change", ["fingerprint", "files"])
def test_success_of_another_job_is_found(output: Path, change: str) -> None:
    success = json.loads((output / "_SUCCESS").read_text())
    if change == "files":
        del success["files"]["000001"]
    else:
        success["fingerprint"] = "0" * 16
    (output / "_SUCCESS").write_text(json.dumps(success))
    assert _verify(output).problems == (
        "_SUCCESS: not of this job, or not of all of its units. Run the job again.",
    )


def test_input_that_changed_since_is_named(
    output: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    write_pairs(31)
    problems = _verify(output).problems
    assert len(problems) == 3
    assert problems[0].startswith(
        f"{output}/part-000000.parquet: its input cannot be read again: {tmp_path}/pairs.parquet: "
        "the file changed after the job was planned."
    )


def test_output_with_unreadable_input_rows_says_only_that_it_is_unfinished(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs(30, row_group_size=10)
    offset, num_bytes = column_chunk(path, 1, "document")
    overwrite(path, offset, b"\xff" * num_bytes)
    scored = score_with_fake(path)
    assert _verify(scored.folder, num_rescored=20).problems == (
        "_SUCCESS: missing; the job has not finished. Run it again.",
    )


# Repair


def test_running_the_job_again_after_following_the_advice_repairs_the_folder(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs(30)
    overrides = ("units.max_rows=10",)
    scored = score_with_fake(path, overrides=overrides)
    part = scored.folder / "part-000001.parquet"
    os.truncate(part, 50)
    assert _verify(scored.folder).problems
    part.unlink()
    again = score_with_fake(path, overrides=overrides)
    assert again.rows == scored.rows
    assert again.summary.num_rows_scored == 10
    assert _verify(scored.folder, num_rescored=10).problems == ()
