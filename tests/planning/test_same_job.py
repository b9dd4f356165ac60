"""One file, however it is spelled, is one input; and what a mismatch says is meant for people."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rgpt_batch.errors import ManifestMismatch
from rgpt_batch.job.plan import plan_job
from rgpt_batch.planning.identity import Identity, InputFile, InputTable, PairFiles, TableFiles
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.planning.same_job import differences, is_same_job
from tests.jobs import Score, fake_config

WritePairs = Callable[..., Path]
SetFiles = Callable[..., Identity]

# 2026-11-27 09:10:11 UTC, in nanoseconds.
_TIME = 1_795_770_611 * 10**9


@pytest.fixture
def with_files(write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path) -> SetFiles:
    """An identity of a job on files of which only path and version are known."""
    path = write_pairs(1, "one.parquet")
    config = fake_config(tiny_tokenizer)
    identity = plan_job(config, [str(path)], str(tmp_path / "scored"))[1].identity

    def make(*files: tuple[str, str]) -> Identity:
        named = tuple(
            InputFile(path=path, version=version, num_row_groups=1) for path, version in files
        )
        return replace(identity, input=PairFiles(files=named))

    return make


def test_a_job_is_continued_whatever_working_folder_its_input_is_named_from(
    score_with_fake: Score,
    write_pairs: WritePairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_pairs(4, "data/pairs.parquet")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    named = score_with_fake("../data/pairs.parquet")
    (plan,) = (named.folder / "_rgpt").glob("plan-*.json")
    manifest = Manifest.from_json(plan.read_bytes(), str(plan))
    assert manifest.identity.input.paths == (str(path),)
    for spelled in (path, "./../data/pairs.parquet", f"{tmp_path}/here/../data/"):
        again = score_with_fake(spelled)
        assert (again.summary.num_rows_before, again.summary.num_rows_scored) == (4, 0)


def test_a_job_is_continued_through_a_link_and_past_it(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    path = write_pairs(4, "2026/pairs.parquet")
    (tmp_path / "latest").symlink_to("2026")
    for name, first, second in (("a", tmp_path / "latest", path), ("b", path, tmp_path / "latest")):
        score_with_fake(first, name=name)
        assert score_with_fake(second, name=name).summary.num_rows_scored == 0


def test_an_output_is_continued_after_a_link_was_moved_to_an_unchanged_copy(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    write_pairs(4, "old/pairs.parquet")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    link = tmp_path / "disk"
    link.symlink_to("old")
    score_with_fake(link)
    link.unlink()
    link.symlink_to("new")
    assert score_with_fake(link).summary.num_rows_scored == 0


def test_a_mismatch_says_in_words_which_file_changed_and_how(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    changed, gone = write_pairs(4, "in/a.parquet"), write_pairs(3, "in/b.parquet")
    os.utime(changed, ns=(_TIME, _TIME))
    size = changed.stat().st_size
    score_with_fake(folder)
    gone.unlink()
    new = write_pairs(3, "in/c.parquet")
    pq.write_table(pq.read_table(changed).slice(0, 2), changed)
    os.utime(changed, ns=(_TIME + 10**9, _TIME + 10**9))
    with pytest.raises(ManifestMismatch) as refused:
        score_with_fake(folder)
    assert re.sub(r"[\d,]+ bytes", "N bytes", str(refused.value)).splitlines() == [
        f"{tmp_path}/scored: holds the scores of another job:",
        f"  input {changed}: was N bytes, written 2026-11-27 09:10:11 UTC, 1 row group; is N "
        "bytes, written 2026-11-27 09:10:12 UTC, 1 row group",
        f"  input {gone}: was read, is not named now",
        f"  input {new}: is new",
        "Use another output folder, or --on-change overwrite to delete them.",
    ]
    assert f"was {size:,} bytes" in str(refused.value)


@pytest.mark.parametrize(
    ("path", "was", "now", "said"),
    [
        (
            "s3://b/a.parquet",
            '7-"abc"',
            '7-"def"',
            "was written again, 7 bytes, 1 row group",
        ),
        (
            "/a.parquet",
            f"7-{_TIME}",
            f"7-{_TIME + 5}",
            "was written again, 7 bytes, written 2026-11-27 09:10:11 UTC, 1 row group",
        ),
        (
            "hf://datasets/a/b@c/a.parquet",
            "1",
            "2000",
            "was 1 byte, 1 row group; is 2,000 bytes, 1 row group",
        ),
    ],
)
def test_versions_of_every_kind_of_place_are_told_without_codes(
    with_files: SetFiles, path: str, was: str, now: str, said: str
) -> None:
    old, new = with_files((path, was)), with_files((path, now))
    assert not is_same_job(old, new)
    assert differences(old, new) == f"  input {path}: {said}"


def test_settings_and_files_of_a_mismatch_are_listed_up_to_twelve(with_files: SetFiles) -> None:
    new = with_files(*((f"/{index:02d}", "1") for index in range(15)))
    new = replace(new, scoring={**new.scoring, "protocol.name": "eval"})
    lines = differences(with_files(), new).splitlines()
    assert len(lines) == 13
    assert lines[0] == "  protocol.name: was card, is eval"
    assert lines[-2:] == ["  input /10: is new", "  … and 4 more"]


def test_pairs_and_joined_tables_are_different_jobs(with_files: SetFiles) -> None:
    pairs = with_files(("/a", "1"))
    assert isinstance(pairs.input, PairFiles)
    table = InputTable(columns={"query_id": "qid"}, files=pairs.input.files)
    tables = TableFiles(candidates=table, queries=None, documents=table)
    joined = replace(pairs, input=tables)
    assert differences(pairs, joined) == (
        "  input: was pairs with their texts, is joined with tables of texts"
    )
    other = replace(
        joined, input=replace(tables, documents=replace(table, columns={"doc_id": "id"}))
    )
    assert differences(joined, other) == (
        '  input columns of documents: was {"query_id": "qid"}, is {"doc_id": "id"}'
    )
    without = replace(joined, input=replace(tables, queries=table, documents=None))
    assert "  input queries /a: is new" in differences(joined, without).splitlines()
    assert "  input documents /a: was read, is not named now" in differences(joined, without)
