"""What is there already decides what writing a file does to it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rgpt_batch.errors import ConfigError
from rgpt_batch.storage.written_files import check_output, replacing

CONTENT = b"all of it"


def write(output: Path) -> None:
    with replacing(output) as staged:
        staged.write_bytes(CONTENT)


@contextmanager
def reading(pipe: Path) -> Iterator[list[bytes]]:
    """Make a pipe and read it to its end."""
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    yield got
    reader.join(timeout=60)
    assert not reader.is_alive(), "nothing was written to the pipe"


def device(path: Path, minor: int) -> Path:
    """Make a copy of /dev/null (3) or /dev/full (7)."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    except PermissionError:
        pytest.skip("only root makes devices; the test of a pipe holds the contract")
    return path


def test_file_and_its_folders_appear_with_nothing_beside_them(tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder" / ("n" * 250)
    write(output)
    write(output)
    assert output.read_bytes() == CONTENT
    assert os.listdir(output.parent) == [output.name]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    output = tmp_path / "run"
    output.write_text("old")
    with pytest.raises(KeyError), replacing(output) as staged:
        staged.write_bytes(CONTENT)
        raise KeyError
    assert output.read_text() == "old"
    assert os.listdir(tmp_path) == ["run"]


def test_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "1").write_text("old")
    (tmp_path / "latest").symlink_to("runs/1")
    (tmp_path / "next").symlink_to("runs/2")
    write(tmp_path / "latest")
    write(tmp_path / "next")
    assert os.readlink(tmp_path / "latest") == "runs/1"
    assert os.readlink(tmp_path / "next") == "runs/2"
    assert [(tmp_path / "runs" / name).read_bytes() for name in ("1", "2")] == [CONTENT] * 2


def test_pipe_gets_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("pipe")
    with reading(tmp_path / "pipe") as got:
        write(tmp_path / "link")
    assert got == [CONTENT]
    assert (tmp_path / "pipe").is_fifo()


def test_pipe_gets_nothing_of_what_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing(tmp_path / "pipe") as staged:
        os.mkfifo(tmp_path / "pipe")
        staged.write_bytes(CONTENT)
        raise KeyError


def test_device_stays_a_device(tmp_path: Path) -> None:
    null = device(tmp_path / "null", 3)
    write(null)
    assert null.is_char_device()
    assert os.listdir(tmp_path) == ["null"]


def test_device_that_takes_no_more_bytes_is_named(tmp_path: Path) -> None:
    full = device(tmp_path / "full", 7)
    with pytest.raises(ConfigError, match=r"full: cannot be written: No space left"):
        write(full)
    assert full.is_char_device()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_gets_the_bytes_before_what_is_printed_later(
    tmp_path: Path, name: str
) -> None:
    # A file, as after `> run.trec`: opened once more, it would begin anew.
    code = f"""
import sys
from rgpt_batch.storage.written_files import replacing
with replacing({name!r}) as staged:
    staged.write_text("bytes")
print(", then words")
"""
    with (tmp_path / "shown").open("w") as shown:
        subprocess.run([sys.executable, "-c", code], stdout=shown, check=True, timeout=60)
    assert (tmp_path / "shown").read_text() == "bytes, then words\n"
    assert os.listdir(tmp_path) == ["shown"]


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        check_output(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"run: cannot be written: .*file is no folder"):
        check_output(tmp_path / "file" / "run")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(ConfigError, match="is a socket"):
            check_output(tmp_path / "socket")


def test_disk_is_refused(tmp_path: Path) -> None:
    try:
        # No driver has this number, so that nothing can be lost.
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(4000, 1))
    except PermissionError:
        pytest.skip("only root makes devices; the test of a socket holds the contract")
    with pytest.raises(ConfigError, match="is a disk"):
        write(tmp_path / "disk")
