"""`rgpt-batch bench` with small models of the real architectures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import RunCli

SMALL = (
    *("--documents", "40", "--turns", "1", "--seconds", "0.3"),
    *("-o", "engine.kv_cache_bytes=67108864", "-o", "engine.gpu_memory_utilization=0.3"),
    *("-o", "engine.enforce_eager=true", "-o", "executor.kind=local"),
)


@pytest.mark.vllm
def test_variants_of_vllm_are_measured_and_score_the_same(run_cli: RunCli, tmp_path: Path) -> None:
    # Costs 40 s of CPU: two processes load vLLM.
    names = ("prompt-logprobs", "query-rows")
    done = run_cli(
        *("bench", "--shape", "bloom-560m-tiny", "--queries-per-document", "1", *SMALL),
        *(argument for name in names for argument in ("--variant", name)),
        *("--cache", tmp_path / "cache"),
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    rows = [
        line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| 40 tokens")
    ]
    assert [row[1] for row in rows] == [*names]
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)
    # In bfloat16 where the machine has it.
    assert all(float(row[8].rstrip(" |")) < 0.1 for row in rows)


@pytest.mark.long
@pytest.mark.vllm
def test_every_variant_is_measured_or_told_why_not(run_cli: RunCli, tmp_path: Path) -> None:
    file = tmp_path / "results" / "bench.md"
    done = run_cli(
        *("bench", "--shape", "bloom-560m-tiny", "--queries-per-document", "2"),
        *("--queries-per-document", "1", *SMALL, "--cache", tmp_path / "cache", "--to", file),
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    assert text.strip() == done.stdout.strip()
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| 40 tokens")]
    measured = {(row[0][2:], row[1]) for row in cells}
    alone, shared = "40 tokens, 1 per document", "40 tokens, 2 per document"
    everything = ("card", "eval", "prompt-logprobs", "query-rows", "pipeline")
    assert measured == {
        *((alone, name) for name in everything),
        *((shared, name) for name in ("prompt-logprobs", "query-rows")),
    }
    assert all(float(row[2].replace(",", "")) > 0 for row in cells)
    # All variants score the same pairs the same, in bfloat16 where the machine has it.
    assert all(float(row[8].rstrip(" |")) < 0.1 for row in cells[:-2])
    assert [row[8].rstrip(" |") for row in cells[-2:]] == ["-", "-"]
    # The pipeline takes turns with query-rows alone.
    assert [row[1] for row in cells[-2:]] == ["query-rows", "pipeline"]
    assert all(row[4] != "-" for row in cells[-2:])
    assert "- token-ids: " in text


@pytest.mark.long
@pytest.mark.vllm
def test_what_is_tuned_on_gpus_runs_with_weights_that_vllm_makes_up(
    run_cli: RunCli, tmp_path: Path
) -> None:
    name = "query-rows, 2 engines"
    done = run_cli(
        *("bench", "--shape", "qwen-7b-tiny", "--queries-per-document", "1", *SMALL),
        *("--variant", name, "-o", "engine.vllm_args.load_format=dummy"),
        *("--cache", tmp_path, "--to", tmp_path),
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("20??-??-??-*.md")
    assert file.read_text().strip() == done.stdout.strip()
    rows = [line.split(" | ")[1] for line in done.stdout.splitlines() if line.startswith("| 40 ")]
    assert rows == ["query-rows", name]


def test_shapes_have_a_section_each_and_say_what_there_was_no_time_for(
    run_cli: RunCli, tmp_path: Path
) -> None:
    shapes = ("bloom-560m-tiny", "llama2-7b-tiny")
    done = run_cli(
        *("bench", *SMALL, "--variant", "query-rows", "--budget", "0.001", "--cache", tmp_path),
        *(argument for shape in shapes for argument in ("--shape", shape)),
    )
    assert done.returncode == 1
    for shape, section in zip(shapes, done.stdout.split("# Throughput: ")[1:], strict=True):
        assert section.startswith(shape)
        assert "- query-rows: there was no time left to start it" in section


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--shape", "bloom-9b"), "no shape is called 'bloom-9b'"),
        (("--shape", "bloom-560m-tiny", "--model", "x"), "exclude each other"),
        (("--shape", "bloom-560m-tiny", "--variant", "fast"), "'fast' is none of card, eval"),
        (("--model", "no/such/model"), "cannot load the tokenizer of 'no/such/model'"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[str, ...], complaint: str, run_cli: RunCli, tmp_path: Path
) -> None:
    done = run_cli("bench", *arguments, "--cache", tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_file_that_grows_is_no_pipe(run_cli: RunCli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run_cli("bench", "--model", tmp_path, "--to", tmp_path / "pipe")
    assert done.returncode == 2
    assert "--to: a file that grows turn by turn is no device or pipe." in done.stderr
