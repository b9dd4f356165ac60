"""Converted models compute what the published ones do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rgpt_batch.conversion.convert import convert
from rgpt_batch.conversion.target import file_sha256
from tests.conversion.checkpoints import (
    ADAPTER,
    BAICHUAN,
    BERT,
    LLAMA,
    QWEN,
    QWEN_OLD_NAMES,
    adapter_tensors,
    baichuan_tensors,
    bert_tensors,
    llama_tensors,
    qwen_tensors,
    save,
    save_adapter,
)
from tests.conversion.references import baichuan_logits, qwen_logits, rankllama_logit
from tests.conversion.vocabularies import LLAMA_TOKENIZER, write_json

# Largest difference of a logit in float32; logits are up to some 30. Measured: 2e-5.
TOLERANCE = 1e-4
IDS = [(7 * number * number + 3) % 1000 for number in range(60)]


def _logits(folder: Path, ids: Sequence[int] = IDS) -> torch.Tensor:
    model, loading = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.inference_mode():
        return model(torch.tensor([list(ids)])).logits[0]


def _difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return (left - right).abs().max().item()


def test_converted_baichuan_computes_the_published_logits(baichuan: Path, tmp_path: Path) -> None:
    convert(baichuan, tmp_path / "llama")
    tensors = baichuan_tensors(BAICHUAN)
    logits = _logits(tmp_path / "llama")
    assert _difference(logits, baichuan_logits(BAICHUAN, tensors, IDS)) <= TOLERANCE
    # The control: a head that is not normalised would be seen.
    assert _difference(logits, baichuan_logits(BAICHUAN, tensors, IDS, norm_head=False)) > 1


@pytest.mark.parametrize("spelling", ["2023-09", "2023-08"])
def test_converted_qwen_computes_the_published_logits(
    qwen: Path, tmp_path: Path, spelling: str
) -> None:
    if spelling == "2023-08":
        old = {QWEN_OLD_NAMES.get(name, name): value for name, value in QWEN.items()}
        write_json(qwen / "config.json", old)
    convert(qwen, tmp_path / "qwen2")
    tensors = qwen_tensors(QWEN)
    logits = _logits(tmp_path / "qwen2")
    assert _difference(logits, qwen_logits(QWEN, tensors, IDS)) <= TOLERANCE
    # The control: halves of the MLP in the wrong order would be seen.
    assert _difference(logits, qwen_logits(QWEN, tensors, IDS, gate="w1")) > 1


def test_converted_qwen_ends_where_the_two_begin_to_differ(qwen: Path, tmp_path: Path) -> None:
    write_json(qwen / "config.json", QWEN | {"seq_length": 64})
    convert(qwen, tmp_path / "qwen2")
    config = AutoConfig.from_pretrained(tmp_path / "qwen2")
    assert config.max_position_embeddings == 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_head_is_normalised_in_float32_and_keeps_its_type(
    baichuan: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    tensors = {name: t.to(dtype) for name, t in baichuan_tensors(BAICHUAN).items()}
    tensors["lm_head.weight"][17] = 0
    save(baichuan, BAICHUAN, tensors)
    convert(baichuan, tmp_path / "llama")
    converted = load_file(tmp_path / "llama" / "model.safetensors")
    assert {tensor.dtype for tensor in converted.values()} == {dtype}
    head = tensors["lm_head.weight"].double()
    lengths = head.norm(dim=1, keepdim=True).clamp_min(1e-12)
    # Rounded once, from values of double precision: float32 between them changes nothing but ties.
    exact = (head / lengths).to(dtype)
    unequal = (converted["lm_head.weight"] != exact).float().mean().item()
    assert unequal < 1e-3
    assert not converted["lm_head.weight"][17].any()
    config = json.loads((tmp_path / "llama" / "config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")


def test_normalising_a_head_twice_changes_nothing_that_counts(
    baichuan: Path, tmp_path: Path
) -> None:
    tensors = baichuan_tensors(BAICHUAN)
    lengths = tensors["lm_head.weight"].norm(dim=1, keepdim=True)
    saved_normalised = tensors | {"lm_head.weight": tensors["lm_head.weight"] / lengths}
    save(baichuan, BAICHUAN, saved_normalised)
    convert(baichuan, tmp_path / "llama")
    expected = baichuan_logits(BAICHUAN, tensors, IDS)
    assert _difference(_logits(tmp_path / "llama"), expected) <= TOLERANCE


def _save_rankllama(tmp_path: Path, tokenizer_files: Path, **settings: Any) -> tuple[Path, Path]:
    base_tensors = llama_tensors(LLAMA)
    base = save(tmp_path / "base", LLAMA, base_tensors)
    (base / "tokenizer.model").write_bytes((tokenizer_files / "llama.model").read_bytes())
    write_json(base / "tokenizer_config.json", LLAMA_TOKENIZER)
    config = ADAPTER | settings
    adapter = save_adapter(tmp_path / "adapter", config, adapter_tensors(config, base_tensors))
    return adapter, base


@pytest.mark.parametrize("where", ["option", "adapter"])
def test_merged_rankllama_scores_as_base_and_adapter_side_by_side(
    tmp_path: Path, tokenizer_files: Path, where: str
) -> None:
    settings = {} if where == "option" else {"base_model_name_or_path": str(tmp_path / "base")}
    adapter, base = _save_rankllama(tmp_path, tokenizer_files, **settings)
    convert(adapter, tmp_path / "merged", base=base if where == "option" else None)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert type(model).__name__ == "LlamaForSequenceClassification"
    names = {file.name for file in (tmp_path / "merged").iterdir()}
    assert "tokenizer.json" in names
    # With it, the adapter would be merged once more by libraries that know adapters.
    assert "adapter_config.json" not in names
    with torch.inference_mode():
        score = model(torch.tensor([IDS])).logits
    assert score.shape == (1, 1)

    # The same by hand: each projection is W x + alpha / r · B (A x), never merged.
    tensors, factors = llama_tensors(LLAMA), adapter_tensors(ADAPTER, llama_tensors(LLAMA))
    expected = rankllama_logit(LLAMA, tensors, ADAPTER, factors, IDS)
    assert abs(score.item() - expected) <= TOLERANCE


@pytest.mark.parametrize("num_labels", [1, 2])
@pytest.mark.parametrize("old_names", [False, True])
def test_bare_bert_becomes_a_classifier_with_its_own_labels(
    tmp_path: Path, num_labels: int, old_names: bool
) -> None:
    tensors = bert_tensors(BERT, num_labels=num_labels, old_names=old_names)
    folder = save(
        tmp_path / "monobert",
        BERT,
        tensors,
        num_shards=1,
        legacy=True,
        config_name="bert_config.json" if old_names else "config.json",
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "walk", "baby", "##s", "a"]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"w{i}" for i in range(191))]) + "\n")
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "max_len": 512})
    convert(folder, tmp_path / "bert")

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    assert tokenizer.is_fast
    assert tokenizer("Baby", "walks a").input_ids == [2, 6, 3, 5, 7, 8, 3]
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "bert", dtype=torch.float32, output_loading_info=True
    )
    assert type(model).__name__ == "BertForSequenceClassification"
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert model.config.num_labels == num_labels
    saved = model.state_dict()
    for name, tensor in tensors.items():
        modern = name.replace("gamma", "weight").replace("beta", "bias")
        assert modern.endswith("position_ids") or torch.equal(saved[modern], tensor), name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_pickled_weights_of_any_model_become_safetensors_with_the_same_values(
    tmp_path: Path, legacy: bool, num_shards: int
) -> None:
    tensors = llama_tensors(LLAMA)
    # Views, of a part and turned round, and one tensor under two names, as tied weights are saved.
    tensors["extra.view"] = torch.arange(12.0).view(3, 4)[1:].T
    tensors["extra.tied"] = tensors["model.embed_tokens.weight"]
    tensors["extra.counts"] = torch.arange(3)
    folder = save(tmp_path / "any", LLAMA, tensors, num_shards=num_shards, legacy=legacy)
    (folder / "own_code.py").write_text("raise SystemExit\n")
    convert(folder, tmp_path / "converted", max_shard_bytes=300_000)
    names = sorted(file.name for file in (tmp_path / "converted").glob("*.safetensors"))
    assert len(names) > 3 and names[0].endswith(f"-of-{len(names):05}.safetensors")
    index = json.loads((tmp_path / "converted" / "model.safetensors.index.json").read_text())
    found: dict[str, torch.Tensor] = {}
    for name in names:
        shard = load_file(tmp_path / "converted" / name)
        assert all(index["weight_map"][each] == name for each in shard)
        found |= shard
    assert found.keys() == tensors.keys() == index["weight_map"].keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    assert (tmp_path / "converted" / "config.json").read_bytes() == (
        folder / "config.json"
    ).read_bytes()
    assert (tmp_path / "converted" / "own_code.py").is_file()


def test_record_says_what_was_done_with_hashes_of_all_files(baichuan: Path, tmp_path: Path) -> None:
    before = {file.name: file_sha256(file) for file in baichuan.iterdir()}
    convert(baichuan, tmp_path / "llama")
    assert {file.name: file_sha256(file) for file in baichuan.iterdir()} == before
    record = json.loads((tmp_path / "llama" / "conversion.json").read_text())
    written = {file.name: file_sha256(file) for file in (tmp_path / "llama").iterdir()}
    assert record["files"] == {k: v for k, v in written.items() if k != "conversion.json"}
    assert record["source"] == before
    assert any("NormHead" in rule for rule in record["rules"])
    assert {"rgpt-batch", "torch", "tokenizers"} <= record["versions"].keys()
    assert str(tmp_path) not in json.dumps(record)
    # What belongs to the model came along, its code and what was replaced did not.
    assert written.keys() == {
        *("config.json", "conversion.json", "generation_config.json", "README.md"),
        *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    }


def test_equal_conversions_are_equal_folders(qwen: Path, tmp_path: Path) -> None:
    convert(qwen, tmp_path / "one")
    convert(qwen, tmp_path / "two")
    assert {f.name: file_sha256(f) for f in (tmp_path / "one").iterdir()} == {
        f.name: file_sha256(f) for f in (tmp_path / "two").iterdir()
    }
