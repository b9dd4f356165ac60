"""Which files a job reads, where they may lie, and what happens when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rgpt_batch.errors import ConfigError, ManifestMismatch, ShardError
from rgpt_batch.executors.unit_runner import UnitRunner
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.job.plan import plan_job
from rgpt_batch.records import RejectionReason
from tests.jobs import Score, fake_config, read_output

WritePairs = Callable[..., Path]


def _doc_ids(low: int, high: int) -> list[str]:
    return [f"d{i}" for i in range(low, high)]


# Which files a folder or pattern means


def test_hidden_and_private_names_are_left_out(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    write_pairs(2, "in/sub/pairs.parquet")
    for name in ("in/_tmp/x.parquet", "in/.hidden/x.parquet", "in/_x.parquet", "in/.x.parquet"):
        write_pairs(5, name)
    assert score_with_fake(tmp_path / "in").table.num_rows == 2


def test_folder_named_like_a_file_is_searched_not_read(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    write_pairs(2, "in/spark.parquet/part-00000.snappy.parquet")
    write_pairs(3, "in/z.parquet")
    assert score_with_fake(tmp_path / "in").table.num_rows == 5


def test_file_that_several_arguments_name_is_scored_once(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    path = write_pairs(4, "in/pairs.parquet")
    (tmp_path / "link.parquet").symlink_to(path)
    scored = score_with_fake(
        path,
        tmp_path / "in",
        tmp_path / "in/*.parquet",
        f"{tmp_path}/in/../in/pairs.parquet",
        tmp_path / "link.parquet",
    )
    assert scored.table.num_rows == 4


def test_files_come_in_the_order_of_the_arguments(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    late, early = write_pairs(1, "z.parquet"), write_pairs(2, "a.parquet")
    scored = score_with_fake(late, early, overrides=("output.source=true",))
    assert scored.column("source_file") == [str(late), str(early), str(early)]


def test_folder_that_may_not_be_listed_is_an_error_not_a_gap(
    unlistable: Path, tiny_tokenizer: Path
) -> None:
    with pytest.raises(ConfigError, match=r"cannot be listed: .*closed"):
        plan_job(fake_config(tiny_tokenizer), [str(unlistable)], str(unlistable / "scored"))


# Input and output in each other's way


def test_input_in_the_output_folder_is_refused(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs(3, "scored/pairs.parquet")
    with pytest.raises(ConfigError, match=r"scored/pairs\.parquet: an input file lies in the out"):
        score_with_fake(path)


def test_output_in_the_input_folder_is_refused_before_it_could_become_input(
    tiny_tokenizer: Path, write_pairs: WritePairs
) -> None:
    folder = write_pairs(3, "pairs/pairs.parquet").parent
    with pytest.raises(ConfigError, match=r"scored: the output folder lies in the input folder"):
        plan_job(fake_config(tiny_tokenizer), [str(folder)], str(folder / "scored"))


@pytest.mark.parametrize("pattern", ["*", "**", "**/*.parquet", "*/part-*", "sc*", "../*/pairs*"])
def test_output_that_a_pattern_would_find_is_refused(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path, pattern: str
) -> None:
    for name in ("data/a.parquet", "data/b/part-0", "data/scores.parquet", "data/pairs/c.parquet"):
        write_pairs(3, name)
    is_around = pattern.startswith("..")
    output = tmp_path / "data" / ("pairs-scored" if is_around else "scored")
    with pytest.raises(ConfigError, match=r"scored: the output folder lies where .*data/"):
        plan_job(fake_config(tiny_tokenizer), [f"{tmp_path}/data/{pattern}"], str(output))


@pytest.mark.parametrize("pattern", ["*.parquet", "p*", "*/c.parquet", "**/c*.parquet"])
def test_output_beside_what_a_pattern_finds_is_fine(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path, pattern: str
) -> None:
    for name in ("data/a.parquet", "data/pairs/c.parquet"):
        write_pairs(3, name)
    config, output = fake_config(tiny_tokenizer), str(tmp_path / "data/scored")
    _, manifest = plan_job(config, [f"{tmp_path}/data/{pattern}"], output)
    assert manifest.num_rows == 3


def test_output_folder_with_other_files_is_refused_and_left_alone(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    path = write_pairs(3)
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored/thesis.txt").write_text("do not lose")
    with pytest.raises(
        ManifestMismatch, match=r"scored: the folder is not empty \(thesis\.txt …\)"
    ):
        score_with_fake(path)
    assert [file.name for file in (tmp_path / "scored").iterdir()] == ["thesis.txt"]


def test_output_that_is_a_file_is_refused_and_left_alone(
    score_with_fake: Score, write_pairs: WritePairs, tmp_path: Path
) -> None:
    path = write_pairs(3)
    (tmp_path / "scored").write_text("do not lose")
    with pytest.raises(ManifestMismatch, match="scored: the output is a file, expected a folder"):
        score_with_fake(path)
    assert (tmp_path / "scored").read_text() == "do not lose"


# Files that change between planning and reading


def _run_units(
    inputs: Path, output: Path, tokenizer: Path, spoil: Callable[[], object]
) -> dict[str, str]:
    """Plan, spoil the input, then run the units; return the errors of those that failed."""
    config, manifest = plan_job(
        fake_config(tokenizer, "units.max_rows=10"), [str(inputs)], str(output)
    )
    spoil()
    runner = UnitRunner(config, manifest.columns, manifest.fingerprint, str(output), "worker")
    errors = {}
    for unit in manifest.units:
        try:
            runner.run(unit)
        except ShardError as error:
            errors[unit.unit_id] = str(error)
    return errors


def test_file_that_changed_after_planning_fails_its_units_only(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    write_pairs(20, "in/a.parquet")
    changed = write_pairs(20, "in/b.parquet")

    errors = _run_units(
        tmp_path / "in",
        tmp_path / "scored",
        tiny_tokenizer,
        spoil=lambda: write_pairs(21, "in/b.parquet"),
    )

    assert list(errors) == ["000002", "000003"]
    assert errors["000002"].startswith(f"{changed}: the file changed after the job was planned.")
    assert read_output(tmp_path / "scored")["doc_id"].to_pylist() == _doc_ids(0, 20)


def test_file_that_was_deleted_after_planning_fails_its_units_only(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    deleted = write_pairs(10, "in/a.parquet")
    write_pairs(20, "in/b.parquet")

    errors = _run_units(tmp_path / "in", tmp_path / "scored", tiny_tokenizer, spoil=deleted.unlink)

    assert list(errors) == ["000000"]
    assert errors["000000"].startswith(f"{deleted}: cannot be opened: ")
    assert errors["000000"].endswith("Bring the file back, then run the same command again.")
    assert read_output(tmp_path / "scored")["doc_id"].to_pylist() == _doc_ids(0, 20)


def test_file_that_changed_between_runs_makes_the_same_command_refuse(
    score_with_fake: Score, write_pairs: WritePairs
) -> None:
    path = write_pairs(5)
    score_with_fake(path)
    write_pairs(6)
    with pytest.raises(ManifestMismatch, match=f"input {path}: was .* row group; is "):
        score_with_fake(path)


# Memory


def test_long_documents_come_in_small_batches(
    write_pairs: WritePairs, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    path = write_pairs(
        [("a query", "long document " * 15_000)] * 100, use_dictionary=False, write_batch_size=1
    )
    _, manifest = plan_job(fake_config(tiny_tokenizer), [str(path)], str(tmp_path / "scored"))
    batches = [
        batch
        for unit in manifest.units
        for batch in read_pairs(unit, manifest.columns, source=True)
    ]
    # 210 kB each, and 2 MiB is the limit.
    assert max(len(batch.pairs) for batch in batches) == 9
    assert [row for batch in batches for row in batch.columns["source_row"].to_pylist()] == [
        *range(100)
    ]
    assert RejectionReason.UNREADABLE not in {getattr(p, "reason", None) for p in batches[0].pairs}
