"""`rgpt-batch tune`: what it takes, what it leaves, and the configuration that it writes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rgpt_batch.bench.knobs import Knobs, current_knobs, directions, other_dtypes
from rgpt_batch.bench.samples import SampledTexts
from rgpt_batch.bench.tuned_file import tuned_config, write_tuned
from rgpt_batch.bench.tuning import Trial, Tuning
from rgpt_batch.bench.workload import Workload
from rgpt_batch.config.load import load_config
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.records import ScorePair
from tests.conftest import RunCli
from tests.e2e.processes import rgpt_batch, started
from tests.e2e.test_json import documented
from tests.jobs import fake_config

WritePairs = Callable[..., Path]
# Few rows, one quick turn: what is measured does not matter.
QUICK = ("--turns", "1", "--seconds", "0.05", "-o", "engine.fake_seconds_per_pair=0.005")


def config_of(tokenizer: Path, *options: str) -> JobConfig:
    return fake_config(tokenizer, "engine.prefix_caching=false", *options)


def speed(knobs: Knobs) -> float:
    """A machine that likes steps of 4096 tokens, two engines, and 16 bit."""
    pairs_per_second = 100.0
    pairs_per_second *= {2048: 1.2, 4096: 1.5, 8192: 1.45}.get(knobs.max_num_batched_tokens, 1)
    pairs_per_second *= {1: 1, 2: 1.4}.get(knobs.engines_per_gpu, 1.2)
    pairs_per_second *= {"bfloat16": 2.0, "float16": 1.9}.get(knobs.dtype, 1)
    return pairs_per_second * (1.5 if knobs.prefix_caching else 1)


def measure(reference: Knobs, choice: Knobs) -> Trial:
    change = {"bfloat16": 0.02, "float16": 0.004}
    return Trial(
        knobs=choice,
        reference=reference,
        pairs_per_second=(speed(choice),) * 3,
        reference_pairs_per_second=(speed(reference),) * 3,
        max_score_change=change.get(choice.dtype, 0.0),
    )


def searched(
    config: JobConfig,
    max_score_change: float | None = None,
    *,
    num_trials: int = 1000,
    measure: Callable[[Knobs, Knobs], Trial] = measure,
) -> Tuning:
    start = current_knobs(config, num_step_tokens=1024, has_gpu=True)
    tuning = Tuning.of(start, max_score_change)
    tuning.search(
        directions(start, config, has_gpu=True),
        lambda best: other_dtypes(best, computes_16_bit=True),
        measure,
        lambda: len(tuning.trials) < num_trials,
        lambda: None,
    )
    return tuning


def test_knobs_are_turned_as_long_as_that_makes_it_faster(tiny_tokenizer: Path) -> None:
    config = config_of(tiny_tokenizer, "model.dtype=float32")
    tuning = searched(config)
    assert tuning.is_over
    assert tuned_config(config, tuning) == config.with_options(
        {
            "engine.prefix_caching": True,
            "engine.max_num_batched_tokens": 4096,
            "executor.gpus_per_worker": 0.5,
        }
    )
    # Each choice is measured once, against the best one of its time.
    choices = [trial.knobs for trial in tuning.trials]
    assert len(set(choices)) == len(choices)
    assert [trial.gain for trial in tuning.taken] == pytest.approx([1.5, 1.2, 1.25, 1.4])


@pytest.mark.parametrize(
    ("limit", "dtype"), [(None, "float32"), (0.001, "float32"), (0.01, "float16"), (1, "bfloat16")]
)
def test_another_dtype_is_taken_only_as_far_as_scores_may_change(
    limit: float | None, dtype: str, tiny_tokenizer: Path
) -> None:
    tuning = searched(config_of(tiny_tokenizer, "model.dtype=float32"), limit)
    assert tuning.best.dtype == dtype
    assert {trial.knobs.dtype for trial in tuning.trials} == {"float32", "bfloat16", "float16"}
    # Whatever is taken, both were compared with the dtype of the configuration.
    compared = [trial.reference.dtype for trial in tuning.trials[-2:]]
    assert compared == ["float32", "float32"]
    assert tuning.taken[-1].knobs == tuning.best


def test_a_gain_that_one_turn_denies_or_that_is_small_is_left(tiny_tokenizer: Path) -> None:
    def noisy(reference: Knobs, choice: Knobs) -> Trial:
        now = (1.5, 1.5, 0.99) if choice.max_num_batched_tokens > 1024 else (1.02, 1.02, 1.02)
        return Trial(
            knobs=choice,
            reference=reference,
            pairs_per_second=now,
            reference_pairs_per_second=(1.0, 1.0, 1.0),
        )

    tuning = searched(config_of(tiny_tokenizer), measure=noisy)
    assert tuning.best == tuning.start
    assert tuning.taken == []


def test_settings_that_fail_are_left_with_the_reason(tiny_tokenizer: Path, tmp_path: Path) -> None:
    def failing(reference: Knobs, choice: Knobs) -> Trial:
        return Trial(knobs=choice, reference=reference, not_measured="CUDA out of memory")

    config = config_of(tiny_tokenizer)
    tuning = searched(config, measure=failing)
    assert tuning.best == tuning.start
    write_tuned(tmp_path / "tuned.yaml", config, tuning, "a GPU", "100 pairs.")
    text = (tmp_path / "tuned.yaml").read_text()
    assert text.count("| - | - | - | - | no: CUDA out of memory |") == len(tuning.trials)
    assert load_config(tmp_path / "tuned.yaml") == config


def test_the_file_is_a_configuration_with_the_measured_table(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_tokenizer, "model.dtype=float32", "units.max_rows=7")
    tuning = searched(config, num_trials=2)
    write_tuned(tmp_path / "tuned.yaml", config, tuning, "a GPU", "100 pairs.")
    assert load_config(tmp_path / "tuned.yaml") == tuned_config(config, tuning)
    text = (tmp_path / "tuned.yaml").read_text()
    assert "# 100 pairs. Not all settings were tried." in text
    assert (
        "# | engine.max_num_batched_tokens=2048 | 180.0 | 150.0 | 1.20 (1.20 to 1.20) | 0.0000 | "
        "yes |" in text
    )


def test_turns_and_warm_ups_have_rows_of_their_own() -> None:
    pairs = [ScorePair(query=f"q{n}", document=f"d{n}") for n in range(75)]
    texts = SampledTexts(pairs, num_passes=7)
    workload = Workload(document_tokens=0, query_tokens=0, queries_per_document=1)
    drawn = [texts.draw(workload, 1000, seed) for seed in (1, 2, 3, 0, -1, -2, -3)]
    assert [len(each) for each in drawn] == [10] * 7
    assert len({pair.query for each in drawn for pair in each}) == 70
    assert texts.draw(workload, 4, 2) == pairs[10:14]


def test_what_has_nothing_to_tune_says_so(tiny_tokenizer: Path) -> None:
    config = load_config(None, (f"model.name={tiny_tokenizer}", "engine.method=transformers"))
    with pytest.raises(ConfigError, match="transformers has no settings to tune"):
        current_knobs(config, num_step_tokens=1024, has_gpu=False)


def test_engines_per_gpu_count_from_the_configurations_share(tiny_tokenizer: Path) -> None:
    config = config_of(tiny_tokenizer, "executor.gpus_per_worker=0.25")
    start = current_knobs(config, num_step_tokens=1024, has_gpu=True)
    assert start.engines_per_gpu == 4
    assert replace(start, engines_per_gpu=2).changes_from(start) == {
        "executor.gpus_per_worker": 0.5
    }
    assert current_knobs(config, num_step_tokens=1024, has_gpu=False).engines_per_gpu == 1


@pytest.mark.parametrize("option", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_only_engines_of_one_gpu_share_it(option: str, tiny_tokenizer: Path) -> None:
    def num_directions(*options: str) -> int:
        config = config_of(tiny_tokenizer, *options)
        start = current_knobs(config, num_step_tokens=1024, has_gpu=True)
        return len(list(directions(start, config, has_gpu=True)))

    assert num_directions(f"engine.{option}=2") == num_directions() - 1


def test_a_sample_of_the_input_is_measured_and_a_configuration_written(
    run_cli: RunCli, tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    """Costs some 15 s of CPU: processes start, two for each of three trials."""
    file = tmp_path / "own" / "tuned.yaml"
    done = run_cli(
        *("tune", "--model", tiny_tokenizer, "-i", write_pairs(200), "--to", file, "--json"),
        *("-o", "engine.method=fake", "-o", "units.max_rows=50", *QUICK),
        # The least that is tried, so that there is one direction alone.
        *("-o", "engine.max_num_seqs=8", "-o", "engine.max_num_batched_tokens=128"),
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts.keys() == documented("`tune`")
    assert all(trial.keys() == documented("… each of `trials`") for trial in facts["trials"])
    assert (facts["to"], facts["num_pairs"], facts["complete"]) == (str(file), 200, True)
    names = {name for trial in facts["trials"] for name in trial["changes"]}
    assert {"engine.prefix_caching", "engine.max_num_seqs"} < names
    assert all(len(trial["pairs_per_second"]) == 1 for trial in facts["trials"])
    # The fake engine's scores depend on nothing that is tuned.
    assert {trial["max_score_change"] for trial in facts["trials"]} == {0.0}
    written = load_config(file)
    assert written.units.max_rows == 50
    for name, value in facts["settings"].items():
        section, _, option = name.partition(".")
        assert yaml.safe_load(file.read_text())[section][option] == value


@pytest.mark.long
@pytest.mark.vllm
def test_vllm_is_tuned(
    run_cli: RunCli, tiny_llama: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    """Costs two minutes of CPU: two trials start two engines each."""
    file = tmp_path / "tuned.yaml"
    options = (
        *("engine.method=prompt-logprobs", "model.dtype=float32", "engine.enforce_eager=true"),
        *("engine.kv_cache_bytes=67108864", "engine.max_num_seqs=1024", "protocol.max_length=128"),
    )
    done = run_cli(
        *("tune", "--model", tiny_llama, "-i", write_pairs(200), "--to", file, "--json"),
        *("--turns", "2", "--seconds", "0.5"),
        *(word for option in options for word in ("-o", option)),
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    assert trials[0]["changes"] == {"engine.max_num_batched_tokens": 2048}
    assert all(min(trial["pairs_per_second"]) > 0 for trial in trials)
    # Float32: the size of batches does not matter.
    assert max(trial["max_score_change"] for trial in trials) < 1e-3
    assert load_config(file).engine.kv_cache_bytes == 67108864


def test_a_run_that_is_stopped_leaves_what_it_has_found(
    tiny_tokenizer: Path, write_pairs: WritePairs, tmp_path: Path
) -> None:
    file = tmp_path / "tuned.yaml"
    command = rgpt_batch(
        *("tune", "--model", tiny_tokenizer, "-i", write_pairs(200), "--to", file),
        *("-o", "engine.method=fake", *QUICK),
    )
    with started(command, tmp_path / "log", without_torch=False) as process:
        process.wait_until(file.exists)
        process.send(signal.SIGTERM)
        assert process.wait() == 143
        assert f"stopped; {file} has what was found before" in process.output
    assert load_config(file).engine.method == "fake"
    assert "Not all settings were tried." in file.read_text()


@pytest.mark.parametrize(
    ("num_rows", "arguments", "complaint"),
    [
        (20, (), "the sample has 20 pairs with texts; 3 turns and their warm-ups need 56 at least"),
        (20, ("--to", "{tmp}"), "is a directory"),
        (20, ("--to", "/dev/null"), "no device or pipe"),
        (20, ("--to", "s3://bucket/tuned.yaml"), "expected a local path"),
        (20, ("-i", "no/such.parquet"), "no/such.parquet"),
        (99, ("-o", "engine.method=transformers"), "has no settings to tune"),
    ],
)
def test_wrong_input_is_named(
    num_rows: int,
    arguments: tuple[str, ...],
    complaint: str,
    run_cli: RunCli,
    tiny_tokenizer: Path,
    write_pairs: WritePairs,
    tmp_path: Path,
) -> None:
    done = run_cli(
        *("tune", "--model", tiny_tokenizer, "-i", write_pairs(num_rows)),
        *("-o", "engine.method=fake", "--to", tmp_path / "tuned.yaml"),
        *(argument.format(tmp=tmp_path) for argument in arguments),
    )
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
