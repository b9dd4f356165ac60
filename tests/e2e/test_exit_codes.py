"""What the shell sees: 0, 1, 2, 3, and messages that say what to do. Signals: test_signals.py."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rgpt_batch.output.score_file import read_footer
from tests.e2e.jobs import Finish, Job, Start, write_job, write_shard
from tests.e2e.outputs import identities, read_output, row_differences
from tests.e2e.processes import held_after, parts, rgpt_batch
from tests.models import fill_head, save_tiny_llama


@pytest.fixture
def own_job(tmp_path: Path, tiny_tokenizer: Path) -> Job:
    """A job whose input the test may change."""
    return write_job(tmp_path / "job", tiny_tokenizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-such-option"], "No such option"),
        (["-o", "engine.metod=fake"], "engine.metod: unknown option"),
        (["-o", "units.max_rows=none"], "units.max_rows: "),
        (["--protocol", "own"], "'own' is not one of"),
        (["-c", "/no/such.yaml"], "/no/such.yaml: cannot read the configuration"),
        (["-i", "/no/such/pairs"], "/no/such/pairs: no such file or folder"),
        (["--queries", ""], "--queries is empty. Name a Parquet file or folder, or leave it out."),
        (["--pass-through", "colour"], "no column 'colour' to pass through"),
        (["--model", "/no/such/model"], "/no/such/model"),
        (["-o", "executor.num_workers=2"], "the local executor runs one worker"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_culprit(
    options: tuple[str, ...], message: str, job: Job, finish: Finish, tmp_path: Path
) -> None:
    code, said = finish(job.score(tmp_path / "scored", *options))
    assert code == 2
    assert message in " ".join(said.split())
    assert parts(tmp_path / "scored") == []


def test_missing_options_exit_2(finish: Finish) -> None:
    code, said = finish(rgpt_batch("score"))
    assert code == 2
    assert "Missing option" in said


def test_a_folder_of_others_is_left_alone(job: Job, finish: Finish, tmp_path: Path) -> None:
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "chapter-1.tex").write_text("…")
    for options in ([], ["--on-change", "overwrite"]):
        code, said = finish(job.score(output, *options))
        assert code == 2
        assert "belongs to no job of rgpt-batch" in said
    assert [path.name for path in output.iterdir()] == ["chapter-1.tex"]


def test_an_output_that_cannot_be_a_folder_is_an_error_without_a_traceback(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("…")
    code, said = finish(job.score(tmp_path / "file" / "scored"))
    assert code in (1, 2)
    assert str(tmp_path / "file") in said


def test_a_complete_job_is_not_scored_again(
    job: Job, finish: Finish, clean_output: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(clean_output, tmp_path / "scored")
    before = identities(output)
    code, said = finish(job.score(output))
    assert code == 0
    assert "96, of which 0 in this run and 96 before" in said
    assert "rejected     3 (NULL_QUERY 3)" in said
    assert identities(output) == before


def test_another_job_in_the_folder_is_refused_with_what_differs(
    job: Job, finish: Finish, clean_output: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(clean_output, tmp_path / "scored")
    before = identities(output)
    code, said = finish(job.score(output, "--max-length", "30", "--protocol", "eval"))
    assert code == 2
    assert "protocol.max_length: was 40, is 30" in said
    assert "protocol.name: was card, is eval" in said
    assert "--on-change overwrite" in said
    assert identities(output) == before


def test_options_that_change_no_score_do_not_matter(
    job: Job, finish: Finish, clean_output: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(clean_output, tmp_path / "scored")
    code, _ = finish(
        job.score(output, "-o", "engine.max_num_seqs=7", "-o", "executor.units_in_flight=1")
    )
    assert code == 0


def test_overwrite_leaves_no_old_row(
    job: Job, finish: Finish, clean_output: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(clean_output, tmp_path / "scored")
    # Fewer units than before: old files with higher numbers must go.
    options = ["--max-length", "30", "-o", "units.max_rows=32", "--on-change", "overwrite"]
    code, said = finish(job.score(output, *options))
    assert code == 0
    assert "96, of which 96 in this run and 0 before" in said
    success = json.loads((output / "_SUCCESS").read_text())
    assert {read_footer(str(part))[0].fingerprint for part in parts(output)} == {
        success["fingerprint"]
    }
    assert len(parts(output)) == success["num_units"] < job.num_units
    fresh = tmp_path / "fresh"
    assert finish(job.score(fresh, *options[:-2]))[0] == 0
    assert row_differences(read_output(fresh), read_output(output)) == []


def test_a_changed_input_file_is_refused(own_job: Job, finish: Finish, tmp_path: Path) -> None:
    output = tmp_path / "scored"
    assert finish(own_job.score(output))[0] == 0
    shard = own_job.pairs / "pairs-1.parquet"
    write_shard(shard, range(48, 100))
    code, said = finish(own_job.score(output))
    assert code == 2
    assert f"input {shard}: was " in said


def test_failed_units_exit_3_without_success_and_the_next_run_completes(
    own_job: Job, start: Start, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    shard = own_job.pairs / "pairs-1.parquet"
    process = start(own_job.score(output), held_at=held_after(1))
    process.wait_until(lambda: len(parts(output)) >= 1)
    # A writer replaces an input file while the job runs.
    shutil.copy2(shard, tmp_path / "old")
    write_shard(shard, range(48, 90))
    process.let_go()
    assert process.wait() == 3, process.output
    assert "Traceback" not in process.output
    assert "problem" in process.output and "units" in process.output
    assert "the file changed after the job was planned" in process.output
    assert not (output / "_SUCCESS").exists()
    failed = {
        path.stem: json.loads(path.read_text()) for path in (output / "_rgpt/failed").iterdir()
    }
    # Units of the other shard are all there; no unit is both, none is missing.
    committed = {part.stem.removeprefix("part-") for part in parts(output)}
    assert committed.isdisjoint(failed)
    assert committed | set(failed) == {f"{unit:06d}" for unit in range(own_job.num_units)}
    assert {f"{unit:06d}" for unit in range(12)} <= committed
    assert all(failure["num_attempts"] == 3 for failure in failed.values())
    code, said = finish(rgpt_batch("status", output))
    assert code == 0 and f"failed       unit {min(failed)}: ShardError" in said

    shutil.copy2(tmp_path / "old", shard)
    code, said = finish(own_job.score(output))
    assert code == 0
    assert f"{len(failed) * 4} in this run" in said
    assert list((output / "_rgpt/failed").glob("*")) == []


def test_too_many_rejections_exit_3_until_they_are_allowed(
    own_job: Job, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "scored"
    write_shard(own_job.pairs / "pairs-1.parquet", range(48, 96), null_rows=tuple(range(48, 80)))
    code, said = finish(own_job.score(output))
    assert code == 3
    assert "34 of 96 rows are rejected, more than output.max_rejected_fraction=0.1" in said
    assert not (output / "_SUCCESS").exists()
    assert pq.read_table(parts(output)[-1]).num_rows == 4
    code, said = finish(own_job.score(output, "-o", "output.max_rejected_fraction=0.5"))
    assert code == 0
    assert "96, of which 0 in this run" in said
    assert (output / "_SUCCESS").exists()


def test_a_model_that_cannot_be_loaded_exits_1_with_its_cause(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    # The folder holds a tokenizer, but no model.
    code, said = finish(
        job.score(tmp_path / "scored", "-o", "engine.method=transformers"), without_torch=False
    )
    assert code == 1
    assert "rgpt-batch: cannot load model" in said
    assert parts(tmp_path / "scored") == []


@pytest.mark.ray
def test_an_engine_that_is_not_installed_exits_1_through_ray_too(
    job: Job, finish: Finish, tmp_path: Path, ray_address: str
) -> None:
    on_cpus = ("-o", "engine.method=transformers", "-o", "executor.gpus_per_worker=0")
    command = job.score(tmp_path / "scored", "--executor", "ray", *on_cpus)
    code, said = finish(command, environment={"RAY_ADDRESS": ray_address})
    assert code == 1
    assert "a worker cannot start: ModuleNotFoundError: No module named 'torch'" in said
    assert "run the same command again" in said


@pytest.mark.ray
def test_a_worker_that_fits_nowhere_exits_2(job: Job, finish: Finish, tmp_path: Path) -> None:
    # In a cluster that the job starts itself; to another one, a larger node may come.
    command = job.score(
        tmp_path / "scored", "--executor", "ray", "-o", "executor.cpus_per_worker=99"
    )
    code, said = finish(command)
    assert code == 2
    assert "a worker needs 99 CPUs on one node" in said


@pytest.mark.ray
def test_a_cluster_that_is_not_there_exits_1_and_names_the_address(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    environment = {"RAY_ADDRESS": "nonsense", "RAY_gcs_rpc_server_connect_timeout_s": "1"}
    code, said = finish(
        job.score(tmp_path / "scored", "--executor", "ray"), environment=environment
    )
    assert code == 1
    assert "cannot start or join a Ray cluster" in said
    assert "RAY_ADDRESS (nonsense)" in said


def test_a_failed_parity_check_exits_2_with_its_numbers(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    model = save_tiny_llama(tmp_path / "model")
    fill_head(model, 0.0)
    options = ("--model", model, "-o", "engine.method=transformers", "--parity", "5")
    command = job.score(tmp_path / "scored", *options)
    code, said = finish(command, without_torch=False)
    assert code == 2
    assert "disagrees with the float32 reference, so nothing was scored" in said
    assert "5 of 5 pairs scored, differences to the float32 reference at most 0 nats" in said
    assert parts(tmp_path / "scored") == []


@pytest.mark.ray
def test_a_cluster_that_was_killed_here_is_not_waited_for(
    job: Job, finish: Finish, tmp_path: Path
) -> None:
    # Ray finds its address on record and would wait for it.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        code, said = finish(
            job.score(tmp_path / "scored", "--executor", "ray"),
            environment={"RAY_TMPDIR": folder, "RAY_ADDRESS": ""},
        )
    assert code == 0, said
    assert "the Ray cluster that ran here does not answer: starting another" in said
    assert (tmp_path / "scored" / "_SUCCESS").exists()
