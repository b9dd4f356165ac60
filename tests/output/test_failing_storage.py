"""A storage that fails while an output is read: nothing good may be called damaged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rgpt_batch import run_job
from rgpt_batch.checks.verify import verify_output
from rgpt_batch.errors import ShardError, StorageError
from rgpt_batch.job.run_job import retry_failed
from rgpt_batch.output.score_file import read_footer
from rgpt_batch.ranking.rank import rank
from tests.jobs import Score, fake_config
from tests.users import NOBODY, not_root

WritePairs = Callable[..., Path]


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def _unreadable(part: Path, root: Path) -> Iterator[None]:
    """Take from a file, for a while, the permission to be read: it is as good as ever."""
    part.chmod(0)
    if os.geteuid() == 0:
        for path in [root, *root.rglob("*")]:
            os.chown(path, NOBODY, -1)
    try:
        with not_root():
            yield
    finally:
        part.chmod(0o644)


@pytest.fixture
def output(root: Path, tiny_tokenizer: Path, write_pairs: WritePairs) -> Path:
    """Three complete units of ten rows, with input and tokenizer beside them."""
    pairs = shutil.copy(write_pairs(30), root / "pairs.parquet")
    tokenizer = shutil.copytree(tiny_tokenizer, root / "tokenizer")
    config = fake_config(Path(tokenizer), "units.max_rows=10")
    run_job(config, [str(pairs)], str(root / "scored"), quiet=True)
    return root / "scored"


def test_a_job_stops_and_says_nothing_of_damage(output: Path, root: Path) -> None:
    (output / "_SUCCESS").unlink()
    part = output / "part-000001.parquet"
    with (
        _unreadable(part, root),
        pytest.raises(
            StorageError, match=r"part-000001\.parquet: cannot be read: .*Permission"
        ) as e,
    ):
        retry_failed(str(output), quiet=True)
    assert "elete" not in str(e.value)
    assert "not a readable Parquet file" not in str(e.value)
    # The storage is back.
    assert retry_failed(str(output), quiet=True).exit_code == 0


def test_verify_names_the_file_and_checks_the_others(output: Path, root: Path) -> None:
    part = output / "part-000001.parquet"
    os.truncate(output / "part-000002.parquet", 100)
    with _unreadable(part, root):
        problems = verify_output(output).problems
    of_part = [problem for problem in problems if str(part) in problem]
    assert of_part
    for problem in of_part:
        assert problem.startswith(f"{part}: cannot be read: ")
        assert "elete" not in problem
    assert any("part-000002.parquet: not a readable Parquet file" in p for p in problems)


def test_reuse_does_not_advise_to_delete_a_file(output: Path, root: Path) -> None:
    part = output / "part-000001.parquet"
    config = fake_config(root / "tokenizer", "units.max_rows=10")
    with _unreadable(part, root), pytest.raises(StorageError, match="cannot be read") as caught:
        run_job(
            config,
            [str(root / "pairs.parquet")],
            str(root / "new"),
            reuse=str(output),
            quiet=True,
        )
    assert "elete" not in str(caught.value)


def test_rank_says_that_the_file_cannot_be_read(output: Path, root: Path) -> None:
    part = output / "part-000000.parquet"
    with (
        _unreadable(part, root),
        pytest.raises(StorageError, match=r"cannot be read: .*Permission"),
    ):
        rank([str(output)], str(root / "run.parquet"), top_k=10)


def test_a_file_that_went_away_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone\.parquet: cannot be read: .*No such file"):
        read_footer(str(tmp_path / "gone.parquet"))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(ShardError, match=r"cut\.parquet: not a readable Parquet file"):
        read_footer(str(tmp_path / "cut.parquet"))


def test_reuse_says_that_a_success_is_out_of_date(
    score_with_fake: Score,
    write_pairs: WritePairs,
    tiny_tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = score_with_fake(write_pairs(30), overrides=("units.max_rows=10",)).folder
    (old / "part-000001.parquet").unlink()
    config = fake_config(tiny_tokenizer)
    summary = run_job(config, [str(write_pairs(30))], str(tmp_path / "new"), reuse=str(old))
    assert summary.num_reused == 20
    assert "its _SUCCESS is out of date: part-000001.parquet is missing" in capsys.readouterr().err
