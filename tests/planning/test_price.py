"""What a job may take and cost: on a GPU by its data sheet, by another output; in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rgpt_batch.bench.price import GPUS, estimate_on_gpu, read_shape
from rgpt_batch.commands.planning import plan
from rgpt_batch.commands.scoring import score
from rgpt_batch.config.options import ModelConfig
from rgpt_batch.errors import ConfigError
from tests.report.jobs import write_report

WritePairs = Callable[..., Path]
LLAMA_2_7B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
}
BLOOM_560M = {
    "model_type": "bloom",
    "n_embed": 1024,
    "n_layer": 24,
    "n_head": 16,
    "vocab_size": 250880,
}


@pytest.fixture
def model(tmp_path: Path) -> Callable[[dict[str, Any]], ModelConfig]:
    def make(settings: dict[str, Any]) -> ModelConfig:
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
        return ModelConfig(name=str(tmp_path / "model"))

    return make


@pytest.mark.parametrize(("settings", "billions"), [(LLAMA_2_7B, 6.74), (BLOOM_560M, 0.56 + 0.257)])
def test_sizes_of_published_models_are_read_from_their_settings(
    settings: dict[str, Any], billions: float, model: Callable[..., ModelConfig]
) -> None:
    """Bloom's embeddings are its head too; the estimate counts both."""
    shape = read_shape(model(settings))
    assert shape.num_bytes / 2e9 == pytest.approx(billions, rel=0.02)


def test_a_7b_model_takes_twice_its_weights_in_flops_for_a_token(
    model: Callable[..., ModelConfig],
) -> None:
    found = estimate_on_gpu(
        model(LLAMA_2_7B),
        "h100",
        num_gpus=1,
        num_tokens=100,
        num_query_tokens=8,
        queries_per_document=1,
    )
    assert found.flops_per_pair == pytest.approx(2 * 6.48e9 * 100, rel=0.05)
    assert found.fast / found.slow == pytest.approx(0.7 / 0.15)
    assert found.slow == pytest.approx(0.15 * 989e12 / found.flops_per_pair)
    assert found.fits and "as seen on an H200" in found.basis


def test_shared_documents_more_gpus_and_small_memory_count(
    model: Callable[..., ModelConfig],
) -> None:
    config = model(LLAMA_2_7B)
    sizes: dict[str, Any] = {"num_tokens": 400, "num_query_tokens": 8}
    alone = estimate_on_gpu(config, "a100", num_gpus=1, queries_per_document=1, **sizes)
    shared = estimate_on_gpu(config, "a100", num_gpus=1, queries_per_document=4, **sizes)
    two = estimate_on_gpu(config, "a100", num_gpus=2, queries_per_document=1, **sizes)
    assert 3 < shared.slow / alone.slow < 4
    assert two.slow / alone.slow == pytest.approx(2)
    large = model({**LLAMA_2_7B, "hidden_size": 8192, "num_hidden_layers": 80})
    assert not estimate_on_gpu(large, "l4", num_gpus=1, queries_per_document=1, **sizes).fits


def test_what_config_json_does_not_tell_is_said(
    model: Callable[..., ModelConfig], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"sizes.*--pairs-per-second or --like"):
        read_shape(model({"model_type": "llama"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        read_shape(ModelConfig(name=str(tmp_path / "empty")))


def test_gpus_are_those_of_the_data_sheets() -> None:
    """Of the same chip: memory alone tells H200 from H100, and PCIe cards are slower."""
    assert GPUS["h200"].bf16_tflops == GPUS["h100"].bf16_tflops > GPUS["h100-pcie"].bf16_tflops
    assert GPUS["a100"].bf16_tflops == GPUS["a100-40gb"].bf16_tflops == 312


@pytest.fixture
def run(tiny_llama: Path, tmp_path: Path) -> Callable[..., str]:
    """Run `plan` or `score` with the fake engine on a model that has a config.json."""

    def run_one(command: Any, output: str, *arguments: str | Path) -> str:
        words = [
            *("--model", tiny_llama, "-o", "engine.method=fake", "--executor", "local", "--quiet"),
            *("-o", "engine.fake_seconds_per_pair=0.01", "--output", tmp_path / output, *arguments),
        ]
        result = CliRunner().invoke(command, list(map(str, words)))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return run_one


def test_plan_says_an_interval_of_time_and_money_for_a_gpu(
    run: Callable[..., str], write_pairs: WritePairs
) -> None:
    pairs = write_pairs(40)
    options = ("-i", pairs, "--gpu", "h100", "--price-per-hour", "3600000")
    shown = run(plan, "scored", *options)
    assert "as seen on an H200" in shown and " to " in shown and "cost" in shown
    facts = json.loads(run(plan, "scored", *options, "--json"))
    found = facts["gpu_estimate"]
    assert facts["effort"] is None
    assert found["low"]["cost"] <= found["high"]["cost"]
    assert found["high"]["seconds"] == pytest.approx(40 / found["slow"])
    # A speed that is known counts for more.
    known = run(plan, "scored", *options, "--pairs-per-second", "10")
    assert "4s for 40 rows" in known and "H200" not in known


def test_plan_takes_the_speed_of_another_output_by_its_tokens(
    run: Callable[..., str], write_pairs: WritePairs, tmp_path: Path
) -> None:
    short = write_pairs([("a query", "text")] * 30, name="short.parquet")
    long = write_pairs([("a query", "text " * 30)] * 30, name="long.parquet")
    run(score, "short", "-i", short)
    options = ("-i", long, "--like", tmp_path / "short", "--json")
    there = json.loads(run(plan, "short", "-i", short, "--json"))
    here = json.loads(run(plan, "long", *options))
    ratio = here["sample"]["mean_prompt_tokens"] / there["sample"]["mean_prompt_tokens"]
    assert ratio > 2
    found = there["effort"]["pairs_per_second"] / here["effort"]["pairs_per_second"]
    assert found == pytest.approx(ratio, rel=0.05)


def test_an_output_that_nothing_was_scored_for_gives_no_speed(
    run: Callable[..., str], write_pairs: WritePairs, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no record of a run that scored anything"):
        run(plan, "scored", "-i", write_pairs(5), "--like", tmp_path / "empty")


def test_a_recorded_plan_stands_beside_what_it_came_to(
    run: Callable[..., str], write_pairs: WritePairs, tmp_path: Path
) -> None:
    options = ("-i", write_pairs(40), "--gpu", "h100", "--record", "--price-per-hour", "3")
    run(plan, "scored", *options)
    run(score, "scored", *options[:2])
    result = write_report(tmp_path / "scored", "--price-per-hour", "3")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "scored" / "_rgpt" / "report.html").read_text()
    summary = (tmp_path / "scored" / "_rgpt" / "report.md").read_text()
    assert "Planned and actual" in page and "## Planned and actual" in summary
    other = write_report(tmp_path / "scored2") if run(score, "scored2", *options[:2]) else None
    assert other is not None and other.exit_code == 0
    assert "Planned" not in (tmp_path / "scored2" / "_rgpt" / "report.html").read_text()


def test_nothing_is_recorded_unless_it_is_asked_for(
    run: Callable[..., str], write_pairs: WritePairs, tmp_path: Path
) -> None:
    pairs = write_pairs(5)
    run(plan, "scored", "-i", pairs, "--pairs-per-second", "5")
    assert not (tmp_path / "scored").exists()
    assert "nothing was recorded" in run(plan, "scored", "-i", pairs, "--record")
