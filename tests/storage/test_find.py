"""What an argument means: the same files on a disk and in an object store. They take 15 s."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.errors import ConfigError
from rgpt_batch.storage.find import find
from rgpt_batch.storage.selection import Reason


@dataclass(frozen=True)
class Place:
    """A folder on a disk or in a bucket."""

    top: str
    put: Callable[[str, bytes], object]

    def write(self, *names: str) -> None:
        for name in names:
            self.put(name, b"x")

    def files(self, argument: str) -> list[str]:
        """What an argument stands for, by names below the folder."""
        return [self.name(file) for file in find(f"{self.top}/{argument}").files]

    def left_out(self, argument: str) -> dict[Reason, list[str]]:
        found = find(f"{self.top}/{argument}").left_out
        return {reason: list(map(self.name, names)) for reason, names in found.items()}

    def name(self, file: str) -> str:
        assert file.startswith(f"{self.top}/")
        return file.removeprefix(f"{self.top}/")


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "disk":

        def write(name: str, content: bytes) -> None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)

        return Place(str(tmp_path), write)
    bucket, s3 = request.getfixturevalue("bucket"), request.getfixturevalue("s3")
    return Place(
        f"s3://{bucket}", lambda name, content: s3.put_object(Bucket=bucket, Key=name, Body=content)
    )


# Names


def test_folder_stands_for_files_of_every_usual_suffix_at_any_depth(place: Place) -> None:
    place.write("in/a.parquet", "in/b.PARQUET", "in/c.parq", "in/d/e/f.pq", "in/g.gz.Parquet")
    place.write("in/h.csv", "in/i.parquet.crc", "in/part-00000")
    assert (
        place.files("in")
        == place.files("in/")
        == [
            *("in/a.parquet", "in/b.PARQUET", "in/c.parq", "in/d/e/f.pq", "in/g.gz.Parquet"),
        ]
    )
    assert place.left_out("in") == {
        Reason.OTHER_NAME: ["in/h.csv", "in/i.parquet.crc", "in/part-00000"]
    }


def test_hidden_names_are_left_out_and_named(place: Place) -> None:
    place.write("in/a.parquet", "in/_SUCCESS", "in/_metadata", "in/.a.parquet.crc")
    place.write("in/_temporary/0/b.parquet", "in/_temporary/1/b.parquet", "in/.c/d.parquet")
    hidden = [".a.parquet.crc", ".c", "_SUCCESS", "_metadata", "_temporary"]
    assert place.files("in") == ["in/a.parquet"]
    assert place.left_out("in") == {Reason.HIDDEN: [f"in/{name}" for name in hidden]}


def test_partition_whose_key_begins_with_an_underscore_is_searched(place: Place) -> None:
    place.write("in/_day=1/a.parquet", "in/_day=2/_x.parquet", "in/.day=3/a.parquet")
    assert place.files("in") == ["in/_day=1/a.parquet"]
    assert place.left_out("in") == {Reason.HIDDEN: ["in/.day=3", "in/_day=2/_x.parquet"]}


def test_file_that_is_named_is_meant_whatever_it_is_called(place: Place) -> None:
    place.write("in/_x.parquet", "in/part-0", "in/.y")
    for name in ("in/_x.parquet", "in/part-0", "in/.y"):
        assert place.files(name) == [name]
        assert place.left_out(name) == {}


def test_folder_with_a_hidden_name_is_searched_if_it_is_named(place: Place) -> None:
    place.write("_in/a.parquet", "_in/b/c.parquet")
    assert place.files("_in") == ["_in/a.parquet", "_in/b/c.parquet"]


def test_files_come_by_name_part_after_part(place: Place) -> None:
    place.write("in/a/z.parquet", "in/a-1/a.parquet", "in/a.parquet", "in/B.parquet")
    names = ["in/B.parquet", "in/a/z.parquet", "in/a-1/a.parquet", "in/a.parquet"]
    assert place.files("in") == names
    assert place.files("in/**/*.parquet") == names


# Patterns


def test_pattern_means_files_and_folders_alike(place: Place) -> None:
    place.write("in/a.parquet", "in/b.parquet/part-0.snappy.parquet", "in/b.parquet/_SUCCESS")
    place.write("in/b.parquet/c/d.pq", "in/b.parquet/notes.txt", "in/c/d.parquet")
    assert place.files("in/*.parquet") == [
        *("in/a.parquet", "in/b.parquet/c/d.pq", "in/b.parquet/part-0.snappy.parquet"),
    ]
    assert place.left_out("in/*.parquet") == {
        Reason.HIDDEN: ["in/b.parquet/_SUCCESS"],
        Reason.OTHER_NAME: ["in/b.parquet/notes.txt"],
    }


def test_file_that_a_pattern_matches_is_meant_whatever_it_is_called(place: Place) -> None:
    place.write("in/part-0", "in/part-1", "in/other")
    assert place.files("in/part-*") == ["in/part-0", "in/part-1"]
    assert place.left_out("in/part-*") == {}


def test_wildcards_do_not_stand_for_the_beginning_of_hidden_names(place: Place) -> None:
    place.write("in/a.parquet", "in/_b.parquet", "in/.c.parquet", "in/_SUCCESS")
    place.write("in/_temporary/0/d.parquet", "in/_temporary/1/d.parquet", "in/e/f.parquet")
    assert place.files("in/*.parquet") == ["in/a.parquet"]
    assert place.left_out("in/*.parquet") == {Reason.HIDDEN: ["in/.c.parquet", "in/_b.parquet"]}
    assert place.files("in/**/*.parquet") == ["in/a.parquet", "in/e/f.parquet"]
    assert place.left_out("in/**/*.parquet")[Reason.HIDDEN][-1] == "in/_temporary"
    assert place.files("in/_*.parquet") == ["in/_b.parquet"]
    assert place.files("in/_temporary/*/*") == [
        *("in/_temporary/0/d.parquet", "in/_temporary/1/d.parquet"),
    ]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("i*/?.parquet", ["in/a.parquet"]),
        ("in/[ab].parquet", ["in/a.parquet"]),
        ("in/**/[cd].parquet", ["in/b/c.parquet", "in/b/e/d.parquet"]),
        ("in/**", ["in/a.parquet", "in/b/c.parquet", "in/b/e/d.parquet"]),
        ("**/e/*", ["in/b/e/d.parquet"]),
        ("in/*/e", ["in/b/e/d.parquet"]),
    ],
)
def test_patterns_match_as_in_a_shell(place: Place, pattern: str, names: list[str]) -> None:
    place.write("in/a.parquet", "in/b/c.parquet", "in/b/e/d.parquet", "input/xy.parquet")
    assert place.files(pattern) == names


def test_brackets_of_a_name_that_is_there_are_no_pattern(place: Place) -> None:
    place.write("in/a[1].parquet", "in/a1.parquet", "top[1]/a.parquet", "top1/b.parquet")
    assert place.files("in/a[1].parquet") == ["in/a[1].parquet"]
    assert place.files("in/a[[]1[]].parquet") == ["in/a[1].parquet"]
    assert place.files("top[1]") == ["top[1]/a.parquet"]


def test_argument_that_means_nothing_says_what_is_there_instead(place: Place) -> None:
    place.write("in/a.csv", "in/_b.parquet")
    with pytest.raises(ConfigError, match=r"in: .*\.parquet, \.parq, \.pq: 1, such as .*in/a\.csv"):
        place.files("in")
    with pytest.raises(ConfigError, match=r"begins with '\.' or '_': 1, such as .*in/_b\.parquet"):
        place.files("in/*.parquet")
    for argument in ("nope", "nope/*.parquet", "in/*.txt"):
        with pytest.raises(ConfigError, match=r"no such|no file matches"):
            place.files(argument)


# Tables with a log

LOGS = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Iceberg": "metadata/00001-5f2c9f2e-0000-4a6e-8f0e-0d8f3a9b7c11.metadata.json",
    "Iceberg table": "metadata/v3.metadata.json",
    "Hudi": ".hoodie/hoodie.properties",
    "Paimon": "snapshot/snapshot-3",
    "Spark stream": "_spark_metadata/0",
}


@pytest.mark.parametrize("name", LOGS)
def test_folder_of_a_table_with_a_log_is_refused(place: Place, name: str) -> None:
    place.write(f"t/{LOGS[name]}", "t/a.parquet")
    log = LOGS[name].partition("/")[0]
    with pytest.raises(ConfigError, match=rf"/t: .*{name}.*{log}.*to plain Parquet and name"):
        place.files("t")


@pytest.mark.parametrize("argument", ["", "t/*.parquet", "t/**/*.parquet", "t/day=1", "t/day*/b*"])
def test_whatever_means_files_of_a_table_with_a_log_is_refused(place: Place, argument: str) -> None:
    place.write("t/_delta_log/00000000000000000000.json", "t/a.parquet", "t/day=1/b.parquet")
    with pytest.raises(ConfigError, match="/t: a Delta Lake table"):
        place.files(argument)


def test_table_beside_what_is_read_does_no_harm(place: Place) -> None:
    place.write("t/_delta_log/00000000000000000000.json", "t/a.parquet", "in/b.parquet")
    assert place.files("in") == place.files("*/b.parquet") == ["in/b.parquet"]


def test_file_of_a_table_that_is_named_itself_is_meant(place: Place) -> None:
    place.write("t/_delta_log/00000000000000000000.json", "t/a.parquet")
    assert place.files("t/a.parquet") == ["t/a.parquet"]


@pytest.mark.parametrize(
    "name",
    [
        "_delta_log/notes.txt",
        "metadata/data.parquet",
        "metadata/readme.json",
        ".hoodie/x",
        "snapshot/x",
    ],
)
def test_folder_that_is_only_called_like_a_log_is_none(place: Place, name: str) -> None:
    place.write("t/a.parquet", f"t/{name}")
    assert "t/a.parquet" in place.files("t")


# Links, and what is no file; on a disk


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    for name in ("real/a.parquet", "elsewhere/b.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file.parquet").symlink_to(tmp_path / "real/a.parquet")
    (tmp_path / "in/folder").symlink_to(tmp_path / "elsewhere")
    expected = [str(tmp_path / "in/file.parquet"), str(tmp_path / "in/folder/b.parquet")]
    assert find(str(tmp_path / "in")).files == expected
    assert find(f"{tmp_path}/in/*").files == expected


def test_links_that_go_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/x.parquet").touch()
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/b").symlink_to("a")
    found = find(str(tmp_path / "in"))
    assert found.files == [str(tmp_path / "in/a/x.parquet")]
    assert found.left_out == {Reason.TWICE: [f"{tmp_path}/in/a/up", f"{tmp_path}/in/b"]}


def test_file_that_a_pattern_means_by_a_link_alone_is_found(tmp_path: Path) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/x.parquet").touch()
    (tmp_path / "in/b").symlink_to("a")
    assert find(f"{tmp_path}/in/**/b/*.parquet").files == [str(tmp_path / "in/b/x.parquet")]


def test_link_into_a_table_with_a_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t/_delta_log").mkdir(parents=True)
    (tmp_path / "t/_delta_log/00000000000000000000.json").touch()
    (tmp_path / "t/a.parquet").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").symlink_to(tmp_path / "t/a.parquet")
    with pytest.raises(ConfigError, match="/t: a Delta Lake table"):
        find(str(tmp_path / "in"))


@pytest.mark.parametrize("argument", ["in", "in/*.parquet"])
def test_what_is_called_like_parquet_but_no_file_is_refused(tmp_path: Path, argument: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").touch()
    (tmp_path / "in/b.parquet").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"in/b\.parquet: a broken link\. Mend or delete it"):
        find(f"{tmp_path}/{argument}")
    (tmp_path / "in/b.parquet").unlink()
    os.mkfifo(tmp_path / "in/b.parquet")
    with pytest.raises(ConfigError, match=r"in/b\.parquet: neither a file nor a folder"):
        find(f"{tmp_path}/{argument}")
    with pytest.raises(ConfigError, match=r"in/b\.parquet: neither a file nor a folder"):
        find(f"{tmp_path}/in/b.parquet")


def test_the_folder_above_a_link_is_the_one_that_the_system_finds(tmp_path: Path) -> None:
    # Taken as text, `..` after a link leads to another folder, whose file has the same name.
    for folder in ("far/deep", "far/pairs", "near/pairs"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("far", "near"):
        (tmp_path / folder / "pairs" / "a.parquet").write_bytes(folder.encode())
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far" / "deep")
    for argument in ("link/../pairs", "link/../pairs/*.parquet", "link/../pairs/a.parquet"):
        (file,) = find(f"{tmp_path}/near/{argument}").files
        assert Path(file).read_bytes() == b"far"


def test_pattern_says_which_folder_it_may_not_list(unlistable: Path) -> None:
    with pytest.raises(PermissionError, match="closed"):
        find(f"{unlistable}/*/*.parquet")


# Markers of folders; in an object store


@pytest.mark.parametrize("marker", ["x.parquet/", "x.parquet", "x.parquet_$folder$"])
def test_empty_objects_that_mark_folders_are_no_files(bucket: str, s3: Any, marker: str) -> None:
    for key, content in (
        ("in/", b""),
        (f"in/{marker}", b""),
        ("in/x.parquet/part-0.parquet", b"x"),
        ("in/empty.parquet/", b""),
    ):
        s3.put_object(Bucket=bucket, Key=key, Body=content)
    expected = [f"s3://{bucket}/in/x.parquet/part-0.parquet"]
    for argument in ("in", "in/", "in/*.parquet", "in/x.parquet", "in/x.parquet/", "**/*.parquet"):
        found = find(f"s3://{bucket}/{argument}")
        assert (found.files, found.left_out) == (expected, {})


def test_empty_object_that_marks_nothing_is_a_file(bucket: str, s3: Any) -> None:
    for key, content in (("in/a.parquet", b""), ("in/b.parquet", b"x"), ("in/b.parquet/", b"")):
        s3.put_object(Bucket=bucket, Key=key, Body=content)
    expected = [f"s3://{bucket}/in/{name}.parquet" for name in "ab"]
    assert find(f"s3://{bucket}/in").files == expected
    assert find(f"s3://{bucket}/in/a.parquet").files == expected[:1]


def test_object_beside_a_folder_of_its_name_is_read_as_well(bucket: str, s3: Any) -> None:
    for key in ("in/x.parquet", "in/x.parquet/part-0.parquet"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert len(find(f"s3://{bucket}/in").files) == 2
