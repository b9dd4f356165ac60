"""What several arguments mean together, and what is said of what they leave out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rgpt_batch.config.options import InputConfig
from rgpt_batch.errors import ConfigError, ShardError, StorageError
from rgpt_batch.importing.readers.arrow import open_arrow
from rgpt_batch.importing.readers.lines import read_lines
from rgpt_batch.importing.readers.relations import PAIRS
from rgpt_batch.importing.readers.spool import Spool
from rgpt_batch.importing.readers.tables import open_parquet
from rgpt_batch.input.find import resolve_inputs
from rgpt_batch.input.inspect import inspect_shard
from rgpt_batch.input.rows import read_rows
from rgpt_batch.job.plan import plan_job
from rgpt_batch.output.scored_files import find_files
from tests.commands.start import rgpt_batch, run
from tests.jobs import Score, fake_config
from tests.servers.faulty_proxy import Fault, FaultyProxy, Request, always

WritePairs = Callable[..., Path]


def test_what_is_left_out_is_said_once_for_each_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.parquet", "_SUCCESS", ".a.crc", "b.csv", "c.parquet.gz", "notes.txt"):
        (folder / name).touch()
    (tmp_path / "link.parquet").symlink_to(folder / "a.parquet")
    arguments = [str(folder), str(folder), str(tmp_path / "link.parquet"), f"{folder}/a.*"]
    assert resolve_inputs(arguments) == [str(folder / "a.parquet")]
    assert caplog.messages == [
        f"left out because the name begins with '.' or '_': 2, such as {folder}/.a.crc",
        "left out because the name does not end in .parquet, .parq, .pq: 3, such as "
        f"{folder}/b.csv",
        f"left out because it is the same as one before: 2, such as {folder}/a.parquet",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_plan_and_score_say_what_they_leave_out(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    write_pairs(3, "in/a.parquet")
    (tmp_path / "in/b.csv").touch()
    options: list[str | Path] = [
        "-i",
        "in",
        "--output",
        "out",
        "-o",
        "engine.method=fake",
        "--model",
        tiny_tokenizer,
    ]
    for command in (["plan"], ["score", "--quiet", "--executor", "local"]):
        done = run(rgpt_batch(*command, *options), folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "does not end in .parquet, .parq, .pq: 1, such as in/b.csv\n" in done.stderr


def test_object_that_two_schemes_name_is_one(bucket: str, s3: Any) -> None:
    for key in ("in/a.parquet", "in/b.parquet"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    found = resolve_inputs([f"s3a://{bucket}/in/b.parquet", f"s3://{bucket}/in"])
    assert found == [f"s3a://{bucket}/in/b.parquet", f"s3://{bucket}/in/a.parquet"]


def test_output_below_the_input_is_refused_whatever_its_scheme(
    bucket: str, s3: Any, tiny_tokenizer: Path, write_pairs: WritePairs
) -> None:
    s3.upload_file(str(write_pairs(2)), bucket, "in/a.parquet")
    with pytest.raises(ConfigError, match="the output folder lies in the input folder"):
        plan_job(fake_config(tiny_tokenizer), [f"s3://{bucket}/in"], f"s3a://{bucket}/in/out")
    with pytest.raises(ConfigError, match=r"in/out: the output folder lies where .*in/\* finds"):
        plan_job(fake_config(tiny_tokenizer), [f"s3://{bucket}/in/*"], f"s3a://{bucket}/in/out")


def test_names_that_are_not_utf8_are_refused(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    write_pairs(2, "in/a.parquet")
    os.rename(tmp_path / "in/a.parquet", os.fsencode(tmp_path / "in") + b"/a\xe9.parquet")
    config = fake_config(tiny_tokenizer)
    for argument in ("in", "in/*", os.fsdecode(b"in/a\xe9.parquet")):
        with pytest.raises(ConfigError, match=r"a\\xe9\.parquet': the name is not UTF-8\. Rename"):
            plan_job(config, [f"{tmp_path}/{argument}"], str(tmp_path / "out"))


def test_empty_name_does_not_stand_for_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="input: expected a path, found ''"):
        resolve_inputs([""])


def test_summary_whose_rows_are_in_other_files_is_refused(
    tmp_path: Path, write_pairs: WritePairs, score_with_fake: Score
) -> None:
    path = write_pairs(2, "in/a.parquet")
    metadata = pq.read_metadata(path)
    metadata.set_file_path("a.parquet")
    pq.write_metadata(metadata.schema.to_arrow_schema(), tmp_path / "in/_metadata", [metadata])
    assert score_with_fake(tmp_path / "in").table.num_rows == 2
    with pytest.raises(ShardError, match=r"in/_metadata: a summary.* in other files, .*a\.parquet"):
        score_with_fake(tmp_path / "in/_metadata")


def test_empty_file_is_an_error_not_a_gap(
    tmp_path: Path, write_pairs: WritePairs, score_with_fake: Score
) -> None:
    write_pairs(2, "in/a.parquet")
    (tmp_path / "in/b.parquet").touch()
    with pytest.raises(ShardError, match=r"in/b\.parquet: not a readable Parquet file"):
        score_with_fake(tmp_path / "in")


def test_unfinished_output_is_no_input(
    tmp_path: Path, write_pairs: WritePairs, tiny_tokenizer: Path, score_with_fake: Score
) -> None:
    texts = "output.pass_through=[query,document]"
    scored = score_with_fake(write_pairs(4), overrides=(texts, "units.max_rows=2")).folder
    pq.write_table(pa.table({"rank": [1]}), scored / "run.parquet")
    config = fake_config(tiny_tokenizer)
    _, manifest = plan_job(config, [str(scored)], str(tmp_path / "again"))
    assert manifest.num_rows == 4
    (scored / "part-000001.parquet").unlink()
    for argument in (f"{scored}/part-*.parquet", f"{scored}/part-000000.parquet"):
        assert plan_job(config, [argument], str(tmp_path / "again"))[1].num_rows == 2
    (tmp_path / "jobs").mkdir()
    scored.rename(tmp_path / "jobs/scored")
    for argument in ("jobs", "jobs/*", "*/*/part-*"):
        with pytest.raises(ConfigError, match=r"jobs/scored: .*part-000001\.parquet is missing"):
            plan_job(config, [f"{tmp_path}/{argument}"], str(tmp_path / "again"))
    scored = tmp_path / "jobs/scored"
    with pytest.raises(ConfigError, match=r"scored: .*part-000001\.parquet is missing"):
        plan_job(config, [str(scored)], str(tmp_path / "again"))


def test_who_may_read_needs_no_right_to_list_what_is_above(
    proxy: FaultyProxy, bucket: str, s3: Any
) -> None:
    s3.put_object(Bucket=bucket, Key="top/in/a.parquet", Body=b"x")
    found = [f"s3://{bucket}/top/in/a.parquet"]

    def deny(request: Request) -> Fault | None:
        is_listing = "list-type=2" in request.path
        return Fault.DENY if is_listing and "prefix=top%2Fin%2F" not in request.path else None

    proxy.choose = deny
    assert find_files([f"s3://{bucket}/top/in"]) == found
    assert proxy.injected[Fault.DENY] > 0
    proxy.choose = always("GET", "list-type=2", Fault.DENY)
    assert find_files(found) == found
    with pytest.raises(StorageError, match="denies access"):
        find_files([f"s3://{bucket}/top/in"])


# Files that cannot be reached


def test_file_that_may_not_be_read_is_not_taken_for_damage(unlistable: Path) -> None:
    path = str(unlistable / "secret.parquet")
    table = open_parquet([str(unlistable / "pairs.parquet")], PAIRS)
    for read in (
        lambda: inspect_shard(path, InputConfig(), ()),
        lambda: open_parquet([path], PAIRS),
        lambda: list(read_rows([path], table.schema)),
        lambda: list(read_lines(path)),
        lambda: open_arrow(path, [path], PAIRS, Spool(unlistable, print)),
    ):
        with pytest.raises(StorageError, match=r"secret\.parquet: cannot be read.*permissions"):
            read()
