"""The commands: convert, and score on folders that need it and on folders that had it.

Each run of the command line costs some 5 seconds of CPU.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sentencepiece
import tiktoken
import torch

from rgpt_batch import load_config, run_job
from rgpt_batch.config.options import ModelConfig
from rgpt_batch.conversion.needed import conversion_command, needed_conversion
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.model_files import pinned
from rgpt_batch.scoring.tokenizer import load_tokenizer
from tests.conftest import RunCli
from tests.conversion.checkpoints import (
    ADAPTER,
    BAICHUAN,
    BERT,
    LLAMA,
    QWEN,
    adapter_tensors,
    baichuan_tensors,
    llama_tensors,
    qwen_tensors,
    save,
    save_adapter,
)
from tests.conversion.references import baichuan_logits, query_likelihood, qwen_logits
from tests.conversion.vocabularies import QWEN_PATTERN, read_tiktoken

PAIRS = [
    ("when should a baby walk", "Most babies start to walk around 13 months, but some later."),
    (" two  blanks", "  Rows\tof blanks:    and    more.\n\nNew paragraph."),
    ("how many", "In 2019 there were 1,234 of them."),
    ("wie geht's", ""),
    ("naïve 中文 🙂", "Ünïcode, naïve café; 中文字符 and emoji 🙂🙂."),
]


def _score(run_cli: RunCli, model: Path, pairs: Path, output: Path) -> list[float]:
    done = run_cli(
        *("score", "--model", model, "-i", pairs, "--output", output, "--executor", "local"),
        *("-o", "engine.method=transformers", "-o", "model.dtype=float32"),
    )
    assert done.returncode == 0, done.stderr
    return pq.read_table(next(output.glob("part-*.parquet")))["score"].to_pylist()


def _expected(
    logits_of: Callable[[list[int]], torch.Tensor], encode: Callable[[str], list[int]]
) -> list[float]:
    scores = []
    for query, document in PAIRS:
        context_ids, query_ids = encode(f"Document: {document} Query:"), encode(query)
        logits = logits_of(context_ids + query_ids)
        scores.append(query_likelihood(logits, context_ids, query_ids))
    return scores


def test_converted_baichuan_scores_as_the_published_model_would(
    run_cli: RunCli, baichuan: Path, tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    target = tmp_path / "llama"
    done = run_cli("convert", baichuan, target)
    assert done.returncode == 0, done.stderr
    assert "NormHead folded" in done.stdout
    processor = sentencepiece.SentencePieceProcessor(model_file=str(baichuan / "tokenizer.model"))
    tensors = baichuan_tensors(BAICHUAN)
    expected = _expected(lambda ids: baichuan_logits(BAICHUAN, tensors, ids), processor.encode)
    found = _score(run_cli, target, write_pairs(PAIRS), tmp_path / "scored")
    assert found == pytest.approx(expected, abs=1e-4)


def test_score_says_how_to_convert_qwen_and_then_scores_as_the_published_model_would(
    run_cli: RunCli, qwen: Path, tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    pairs, output = write_pairs(PAIRS), tmp_path / "scored"
    done = run_cli("score", "--model", qwen, "-i", pairs, "--output", output)
    assert done.returncode == 2
    assert f"{qwen}: holds the first Qwen's layout, which no engine loads" in done.stderr
    command = done.stderr.partition("Convert it once: ")[2].splitlines()[0]
    program, *arguments = shlex.split(command)
    assert program == "rgpt-batch"
    done = run_cli(*arguments)
    assert done.returncode == 0, done.stderr
    assert "w2 is the gate" in done.stdout
    encoding = tiktoken.Encoding(
        "Qwen",
        pat_str=QWEN_PATTERN,
        mergeable_ranks=read_tiktoken(qwen / "qwen.tiktoken"),
        special_tokens={},
    )
    tensors = qwen_tensors(QWEN)
    expected = _expected(lambda ids: qwen_logits(QWEN, tensors, ids), encoding.encode)
    found = _score(run_cli, Path(arguments[-1]), pairs, output)
    assert found == pytest.approx(expected, abs=1e-4)


def test_command_refuses_with_exit_code_2(run_cli: RunCli, qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    done = run_cli("convert", qwen, tmp_path / "taken")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"rgpt-batch: {tmp_path / 'taken'}: exists already. Name a folder that does not.\n"
    )


def test_command_says_that_a_folder_needs_no_conversion_with_exit_code_2(
    run_cli: RunCli, tiny_llama: Path, tmp_path: Path
) -> None:
    done = run_cli("convert", tiny_llama, tmp_path / "converted")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"rgpt-batch: {tiny_llama}: needs no conversion. Use it as it is.\n"


# What says so


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save(tmp_path / "my llama", LLAMA, llama_tensors(LLAMA))


def _model_is_refused(folder: Path, said: str) -> None:
    model = ModelConfig(name=str(folder), allow_pickled_weights=True, trust_remote_code=True)
    with pytest.raises(ConfigError, match=said):
        pinned(model)
    with pytest.raises(ConfigError, match=said):
        load_tokenizer(model)


def test_model_in_a_layout_that_no_engine_loads_is_refused_with_the_command(
    baichuan: Path, qwen: Path, llama: Path, tmp_path: Path
) -> None:
    _model_is_refused(baichuan, f"Baichuan's layout.* convert {baichuan} {baichuan}-converted$")
    _model_is_refused(qwen, f"the first Qwen's layout.* convert {qwen} {qwen}-converted$")
    bert = save(tmp_path / "bert", BERT, {}, num_shards=1, config_name="bert_config.json")
    _model_is_refused(bert, f"a BERT whose config does not say.* convert {bert} {bert}-converted$")
    tensors = adapter_tensors(ADAPTER, llama_tensors(LLAMA))
    adapter = save_adapter(tmp_path / "adapter", ADAPTER, tensors)
    _model_is_refused(adapter, "merged into its base.* --base FOLDER_OF_THE_BASE$")
    named = ADAPTER | {"base_model_name_or_path": str(llama)}
    adapter = save_adapter(tmp_path / "named", named, tensors)
    _model_is_refused(adapter, f"convert {adapter} {adapter}-converted$")


def test_nothing_is_planned_for_a_model_that_has_to_change(
    qwen: Path, tmp_path: Path, write_pairs: Callable[..., Path]
) -> None:
    config = load_config(None, (f"model.name={qwen}", "executor.kind=local"))
    with pytest.raises(ConfigError, match="the first Qwen's layout"):
        run_job(config, [str(write_pairs(PAIRS))], str(tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tokenizer.model", "qwen.tiktoken"])
def test_tokenizer_that_would_give_other_tokens_is_refused_with_the_command(
    llama: Path, tiny_tokenizer: Path, name: str
) -> None:
    (llama / name).touch()
    said = (
        f"holds {name}, but no tokenizer.json .* rgpt-batch convert '{llama}' '{llama}-converted'"
    )
    model = ModelConfig(name=str(llama), allow_pickled_weights=True)
    with pytest.raises(ConfigError, match=said):
        load_tokenizer(model)
    with pytest.raises(ConfigError, match=said):
        load_tokenizer(ModelConfig(name=str(tiny_tokenizer), tokenizer=str(llama)))
    # Another tokenizer for these weights is fine.
    load_tokenizer(model.model_copy(update={"tokenizer": str(tiny_tokenizer)}))


def test_folder_that_is_fine_is_not_refused(tiny_llama: Path, tiny_bloom: Path) -> None:
    assert needed_conversion(tiny_llama) is None
    assert needed_conversion(tiny_bloom) is None


def test_model_of_the_hub_is_downloaded_first() -> None:
    assert conversion_command(Path("org/name")) == (
        "hf download org/name --local-dir name, then rgpt-batch convert name name-converted"
    )
