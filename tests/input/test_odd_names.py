"""Names that are not UTF-8: commands work, or say which one; none ends in a traceback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from rgpt_batch import run_job
from rgpt_batch.cli import main
from rgpt_batch.errors import ConfigError
from rgpt_batch.importing.import_pairs import import_pairs
from rgpt_batch.importing.sources.pairs import PairSource
from rgpt_batch.ranking.rank import rank
from tests.jobs import fake_config

ODD = b"caf\xe9"
SAID = r"b'.*caf\\xe9.*: the name is not UTF-8\. Rename the file, or the folder"

WritePairs = Callable[..., Path]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with such a name."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + ODD))
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "-i", "{}", "--output", "out"],
        ["plan", "-i", "in", "--output", "{}"],
        ["plan", "-c", "{}", "-i", "in", "--output", "out"],
        ["plan", "-i", "in", "--output", "out", "--model", "{}"],
        ["plan", "-i", "in", "--output", "out", "-o", "model.name={}"],
        ["status", "{}"],
        ["verify", "{}"],
        ["retry-failed", "{}"],
        ["rank", "{}", "--output", "run"],
        ["rank", "scored", "--output={}"],
        ["evaluate", "run", "--qrels", "{}"],
        ["compare", "a", "{}"],
        ["report", "{}"],
        ["convert", "{}", "to"],
        ["import", "trec", "--run", "{}", "--queries", "q", "--corpus", "c", "--output", "out"],
        ["import", "beir", "{}", "--output", "out"],
        ["bench", "--to", "{}"],
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_such_an_argument_is_refused_by_every_command(
    arguments: list[str], odd: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([argument.format(odd) for argument in arguments])
    assert ended.value.code == 2
    assert (
        "caf\\xe9': the name is not UTF-8. Rename the file, or the folder"
        in capsys.readouterr().err
    )


def test_such_a_working_folder_is_named(
    odd: Path,
    write_pairs: WritePairs,
    tiny_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = write_pairs(3, "in/a.parquet")
    config = fake_config(tiny_tokenizer)
    run_job(config, pairs, tmp_path / "scored", quiet=True)
    shutil.copy(pairs, odd / "a.parquet")
    monkeypatch.chdir(odd)
    source = PairSource(pairs=pairs, queries=None, corpus=None)
    for call in (
        lambda: run_job(config, "a.parquet", tmp_path / "out", quiet=True),
        lambda: run_job(config, pairs, "out", quiet=True),
        lambda: import_pairs(source, "out"),
        lambda: rank("a.parquet", tmp_path / "run", top_k=10),
        lambda: rank(tmp_path / "scored", "run", top_k=10),
    ):
        with pytest.raises(ConfigError, match=SAID):
            call()
    assert os.listdir() == ["a.parquet"]
    # What is said in full has nothing to do with the working folder.
    assert rank(tmp_path / "scored", tmp_path / "run", top_k=10).num_ranked == 3


def test_such_a_folder_for_temporary_files_is_named(
    odd: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    source = write_pairs(3)
    with pytest.raises(ConfigError, match=SAID):
        rank(source, tmp_path / "run", top_k=10, temp_folder=odd)


def test_such_a_file_of_a_folder_of_arrow_is_named(odd: Path, tmp_path: Path) -> None:
    schema = pa.schema([("query_id", pa.string())])
    with pa.OSFile(str(tmp_path / "x"), "wb") as sink, pa.ipc.new_stream(sink, schema):
        pass
    (tmp_path / "arrow").mkdir()
    (tmp_path / "x").rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/arrow/" + ODD + b".arrow")))
    source = PairSource(pairs=tmp_path / "arrow", queries=None, corpus=None)
    with pytest.raises(ConfigError, match=r"b'.*caf\\xe9\.arrow': the name is not UTF-8"):
        import_pairs(source, tmp_path / "pairs")


def test_such_files_beside_what_is_read_do_no_harm(
    write_pairs: WritePairs,
    tiny_tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write_pairs(3, "in/a.parquet").parent
    arguments = ["-i", str(folder), "--output", f"{tmp_path}/out", "-o", "engine.method=fake"]
    arguments += ["--model", str(tiny_tokenizer)]
    Path(os.fsdecode(os.fsencode(folder) + b"/" + ODD)).touch()
    for command in (["plan"], ["score", "--executor", "local", "--quiet"]):
        assert _exit_code([*command, *arguments]) == 0
        # As text that any log takes.
        assert "caf\\xe9" in caplog.text
        caplog.text.encode()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/out/" + ODD)).touch()
    for command in (["status"], ["verify"], ["retry-failed"], ["report"]):
        assert _exit_code([*command, f"{tmp_path}/out"]) == 0, capsys.readouterr().err
    assert _exit_code(["rank", f"{tmp_path}/out", "--output", f"{tmp_path}/run"]) == 0
    assert _exit_code(["plan", "-i", str(folder), "--output", str(folder)]) == 2


def _exit_code(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code
