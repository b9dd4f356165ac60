"""The command line: what it prints, its exit codes, and how it stops."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click import UsageError
from click.testing import CliRunner, Result

from rgpt_batch.commands.importing import import_group
from rgpt_batch.errors import ConfigError
from tests.conftest import ROOT, RunCli
from tests.importing.files import (
    QUERIES,
    read_rows,
    trec_source,
    write_beir,
    write_json_lines,
    write_run,
    write_tsv,
)


def _invoke(*arguments: str | os.PathLike[str]) -> Result:
    return CliRunner().invoke(
        import_group, [os.fspath(argument) for argument in arguments], standalone_mode=False
    )


def _trec_arguments(folder: Path, run: Path | None = None) -> list[str | os.PathLike[str]]:
    source = trec_source(folder, run=run)
    tables = ["--queries", source.queries, "--corpus", source.corpus]
    return ["trec", "--run", source.run, *tables, "--output", folder / "pairs"]


def test_import_says_what_it_took_for_what(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir")
    run = write_run(tmp_path / "run.trec")
    done = _invoke("beir", folder, "--run", run, "--output", tmp_path / "pairs")
    assert done.return_value == 0, done.output
    assert done.stdout.splitlines() == [
        f"pairs        3 of 2 queries, {run}",
        f"queries      {folder}/queries.jsonl, column 'text'",
        f"documents    {folder}/corpus.jsonl, column 'title' + ' ' + 'text'",
        "first stage  score from column 'first_stage_score' and rank from column "
        "'first_stage_rank'",
        f"output       {tmp_path}/pairs, shards: 1",
    ]
    assert f"reading {folder}/corpus.jsonl" in done.stderr


def test_unknown_ids_end_with_3_and_name_examples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("q1", "d1", 1, 1.0), ("q1", "d9", 2, 0.5)])
    done = _invoke(*_trec_arguments(tmp_path, run), "--quiet")
    assert done.return_value == 3
    assert f"no document  1 pairs, distinct ids: 1, 'd9' ({run}:2)\n" in done.stdout
    assert "--missing null" in done.stderr
    assert not (tmp_path / "pairs").exists()


def test_missing_null_ends_with_0_and_still_counts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [("q1", "d1", 1, 1.0), ("q1", "d9", 2, 0.5)])
    done = _invoke(*_trec_arguments(tmp_path, run), "--missing", "null", "--quiet")
    assert (done.return_value, done.stderr) == (0, "")
    assert "no document  1 pairs, " in done.stdout
    assert [row["document"] for row in read_rows(tmp_path / "pairs")][1] is None


def test_options_reach_the_writer(tmp_path: Path) -> None:
    options = ("--rows-per-shard", "2", "--memory-gib", "0.5", "--temp-folder", tmp_path)
    assert _invoke(*_trec_arguments(tmp_path), *options).return_value == 0
    assert len(list((tmp_path / "pairs").iterdir())) == 2


def test_msmarco_takes_top1000_or_the_three_files(tmp_path: Path) -> None:
    trec = trec_source(tmp_path)
    tables = ("--queries", trec.queries, "--collection", trec.corpus)
    top1000 = write_tsv(tmp_path / "top1000.dev", [("q1", "d1", QUERIES["q1"], "passage")])
    done = _invoke("msmarco", "--run", trec.run, *tables, "--output", tmp_path / "pairs")
    assert done.return_value == 0, done.output
    done = _invoke("msmarco", "--top1000", top1000, "--output", tmp_path / "pairs2")
    assert done.return_value == 0, done.output
    for arguments in (["--run", trec.run], ["--top1000", top1000, *tables]):
        done = _invoke("msmarco", *arguments, "--output", tmp_path / "pairs3")
        assert isinstance(done.exception, UsageError)


def test_pairs_say_which_columns_they_are_read_from(tmp_path: Path) -> None:
    record = {"qid": "1", "pid": "2", "query": "a", "passage": "b"}
    path = write_json_lines(tmp_path / "top1000.json", [record])
    done = _invoke("pairs", path, "--output", tmp_path / "pairs", "--quiet")
    assert done.stdout.splitlines() == [
        f"pairs        1 of 1 queries, {path}",
        f"queries      {path}, column 'query'",
        f"documents    {path}, column 'passage'",
        "first stage  unknown",
        f"output       {tmp_path}/pairs, shards: 1",
    ]


@pytest.mark.parametrize("command", sorted(import_group.commands))
def test_help_ends_with_an_example_that_parses(command: str) -> None:
    epilog = import_group.commands[command].epilog
    assert epilog is not None
    first = epilog.removeprefix("Example: rgpt-batch import ").split("; ")[0]
    name, *arguments = first.split()
    assert name == command
    try:
        import_group.commands[name].make_context(name, list(arguments))
    except UsageError as error:
        # The files of the example are not here; everything else must fit.
        assert "does not exist" in error.message


def test_exit_codes_of_the_process(tmp_path: Path, run_cli: RunCli) -> None:
    arguments = _trec_arguments(tmp_path)
    assert run_cli("import", *arguments).returncode == 0
    again = run_cli("import", *arguments)
    assert again.returncode == 2
    assert again.stderr.startswith(f"rgpt-batch: {tmp_path}/pairs: exists and is not an empty")
    arguments[2] = write_run(tmp_path / "run", [("q1", "d9", 1, 1.0)])
    assert run_cli("import", *arguments[:-1], tmp_path / "other").returncode == 3


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_leaves_nothing_behind(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    arguments = _trec_arguments(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments[2] = pipe
    command = [sys.executable, "-m", "rgpt_batch", "import", *map(str, arguments)]
    # A shell that starts the tests in the background has them ignore SIGINT.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # Once the pipe is open, the import reads and has its temporary folders.
    with pipe.open("w") as stream:
        stream.write("q1 Q0 d1 1 2.5 bm25\n")
        stream.flush()
        assert len([path for path in tmp_path.iterdir() if path.name[0] == "."]) == 1
        process.send_signal(signum)
        assert process.wait(timeout=60) == code
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"pipe", "run.trec", "queries.tsv", "corpus.tsv"}


def test_output_that_cannot_be_made_is_not_blamed_on_the_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = _trec_arguments(tmp_path)
    arguments[arguments.index("--output") + 1] = tmp_path / "file" / "pairs"
    error = _invoke(*arguments).exception
    assert isinstance(error, ConfigError)
    assert str(error).startswith(f"{tmp_path / 'file' / 'pairs'}: cannot be written to: ")
    assert "--temp-folder" not in str(error)


@pytest.mark.parametrize("limit", [20_000, 300_000])
def test_lack_of_room_names_the_place_that_has_none(tmp_path: Path, limit: int) -> None:
    # A limit on the size of a file stands for a full disk: the texts of 200 kB compress badly.
    texts = [(f"d{i}", random.Random(i).randbytes(1000).hex()) for i in range(200)]
    corpus = write_tsv(tmp_path / "corpus.tsv", texts)
    queries = write_tsv(tmp_path / "queries.tsv", [("q1", "first")])
    pairs = [("q1", doc_id, rank, -rank) for rank, (doc_id, _) in enumerate(texts, 1)]
    run = write_run(tmp_path / "run", pairs)
    command = [sys.executable, "-m", "rgpt_batch", "import", "trec", "--run", run]
    command += ["--queries", queries, "--corpus", corpus, "--output", tmp_path / "pairs"]
    done = subprocess.run(
        [str(part) for part in command],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if limit < 200_000:
        assert done.returncode == 2
        assert "cannot hold what is read: " in done.stderr and "--temp-folder" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if "import" in p.name) == []
