"""What cannot be converted is refused with its name and the fix, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rgpt_batch.conversion.convert import convert
from rgpt_batch.errors import ConfigError
from tests.conversion.checkpoints import (
    ADAPTER,
    BAICHUAN,
    BERT,
    LLAMA,
    QWEN,
    Tensors,
    adapter_tensors,
    baichuan_tensors,
    bert_tensors,
    llama_tensors,
    qwen_tensors,
    save,
    save_adapter,
)
from tests.conversion.refusing import refused
from tests.conversion.vocabularies import write_json

# Places


def test_target_that_exists_is_left_alone(qwen: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("taken", "file", "link"):
        refused(qwen, f"{name}: exists already", tmp_path / name)
    assert not any((tmp_path / "taken").iterdir())


def test_target_in_the_source_isrefused(qwen: Path) -> None:
    for target in (qwen, qwen / "new", qwen / ".." / "qwen" / "new"):
        refused(qwen, "which is only read", target)


def test_source_has_to_be_a_folder_with_weights(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no such folder. A model of the hub has to be downloaded first")
    (tmp_path / "empty").mkdir()
    write_json(tmp_path / "empty" / "config.json", LLAMA)
    refused(tmp_path / "empty", r"neither model\.safetensors nor pytorch_model\.bin")


def test_folder_that_all_engines_load_needs_no_conversion(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs no conversion"):
        convert(tiny_llama, tmp_path / "converted")
    assert not any(tmp_path.iterdir())


def test_what_was_converted_needs_no_conversion(qwen: Path, tmp_path: Path) -> None:
    convert(qwen, tmp_path / "qwen2")
    refused(tmp_path / "qwen2", "needs no conversion")


# Tensors


Change = tuple[str, torch.Tensor | None]


def _changed(tensors: Tensors, change: Change) -> Tensors:
    """Replace, add or, with None, take out one tensor."""
    changed = tensors | dict([change])
    return {name: tensor for name, tensor in changed.items() if tensor is not None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("lm_head.weight", None), r"lacks tensors .*: lm_head\.weight"),
        (("model.layers.1.mlp.up_proj.weight", None), r"lacks tensors .*layers\.1\.mlp\.up_proj"),
        (("lm_head.bias", torch.ones(1000)), r"unknown tensors .*: lm_head\.bias"),
        (("model.layers.3.mlp.up_proj.weight", torch.ones(2)), "unknown tensors"),
        (
            ("model.norm.weight", torch.ones(64)),
            r"shape \(64,\); its config says \(128,\)",
        ),
        (("model.norm.weight", torch.ones(128).int()), r"is torch\.int32, expected floating"),
    ],
)
def test_baichuan_with_other_tensors_isrefused(tmp_path: Path, change: Change, said: str) -> None:
    tensors = _changed(baichuan_tensors(BAICHUAN), change)
    refused(save(tmp_path / "source", BAICHUAN, tensors), said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("transformer.h.2.attn.c_attn.bias", None), r"lacks tensors .*c_attn\.bias"),
        (("transformer.h.0.attn.c_proj.bias", torch.ones(128)), "unknown tensors .*c_proj"),
        (("transformer.visual.proj", torch.ones(128)), r"unknown tensors .*visual\.proj"),
    ],
)
def test_qwen_with_other_tensors_isrefused(tmp_path: Path, change: Change, said: str) -> None:
    tensors = _changed(qwen_tensors(QWEN), change)
    refused(save(tmp_path / "source", QWEN, tensors), said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("classifier.weight", None), r"without classifier\.weight"),
        (("bert.pooler.dense.bias", None), r"lacks tensors .*pooler\.dense\.bias"),
        (("cls.predictions.bias", torch.ones(200)), r"unknown tensors .*cls\.predictions"),
        (("bert.pooler.dense.bias", torch.ones(2)), r"has shape \(2,\)"),
    ],
)
def test_bert_with_other_tensors_isrefused(tmp_path: Path, change: Change, said: str) -> None:
    tensors = _changed(bert_tensors(BERT, num_labels=2, old_names=True), change)
    refused(save(tmp_path / "source", BERT, tensors, num_shards=1), said)


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_size": 5120, "num_attention_heads": 40}, "ALiBi"),
        ({"max_position_embeddings": None}, "ALiBi"),
        ({"vocab_size": 64000}, "is not Baichuan2"),
        ({"architectures": ["BaiChuanForCausalLM"]}, "is not Baichuan2"),
        ({"tie_word_embeddings": True}, "'tie_word_embeddings' is True"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'"),
        ({"num_hidden_layers": "3"}, "'num_hidden_layers' is '3', expected a positive integer"),
        ({"rms_norm_eps": None}, "'rms_norm_eps' is missing"),
    ],
)
def test_baichuan_that_llama_cannot_compute_isrefused(
    baichuan: Path, settings: dict[str, Any], said: str
) -> None:
    write_json(baichuan / "config.json", BAICHUAN | settings)
    refused(baichuan, said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"no_bias": False}, "'no_bias' is False"),
        ({"rotary_pct": 0.25}, r"'rotary_pct' is 0\.25"),
        ({"tie_word_embeddings": True}, "'tie_word_embeddings' is True"),
        ({"kv_channels": 64}, "kv_channels times heads"),
        ({"intermediate_size": 191}, "two equal halves"),
        ({"seq_length": None}, "'seq_length' is missing"),
        ({"hidden_size": None}, "'hidden_size' or 'n_embd' is missing"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'"),
    ],
)
def test_qwen_that_qwen2_cannot_compute_isrefused(
    qwen: Path, settings: dict[str, Any], said: str
) -> None:
    write_json(qwen / "config.json", QWEN | settings)
    refused(qwen, said)


def test_config_that_is_no_json_object_isrefused(qwen: Path) -> None:
    for content in ("", "[]", "{", '"qwen"', "[" * 100_000):
        (qwen / "config.json").write_text(content)
        refused(qwen, r"config\.json: ")


# Adapters


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base", LLAMA, llama_tensors(LLAMA))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "IA3"}, "'peft_type' is 'IA3'"),
        ({"task_type": "CAUSAL_LM"}, "'task_type' is 'CAUSAL_LM'"),
        ({"use_rslora": True}, "'use_rslora' is True"),
        ({"use_dora": True}, "'use_dora' is True"),
        ({"rank_pattern": {"q_proj": 4}}, "'rank_pattern'"),
        ({"bias": "all"}, "'bias' is 'all'"),
        ({"modules_to_save": ["embed_tokens"]}, "'modules_to_save'"),
        ({"target_modules": "all-linear"}, "'target_modules' is 'all-linear', expected names"),
        ({"target_modules": ["q_proj"]}, "do not belong together"),
        ({"r": 4}, "do not belong together"),
    ],
)
def test_adapter_of_another_kind_isrefused(
    tmp_path: Path, base: Path, settings: dict[str, Any], said: str
) -> None:
    tensors = adapter_tensors(ADAPTER, llama_tensors(LLAMA))
    refused(save_adapter(tmp_path / "adapter", ADAPTER | settings, tensors), said, base=base)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("base_model.model.score.weight", None), r"score\.weight' has shape none"),
        (("base_model.model.score.bias", torch.ones(1)), r"score\.bias' has shape \(1,\)"),
        (
            ("base_model.model.model.layers.1.mlp.up_proj.lora_B.weight", None),
            "up_proj.lora_B.weight' has shape none",
        ),
    ],
)
def test_adapter_with_other_tensors_isrefused(
    tmp_path: Path, base: Path, change: Change, said: str
) -> None:
    tensors = _changed(adapter_tensors(ADAPTER, llama_tensors(LLAMA)), change)
    refused(save_adapter(tmp_path / "adapter", ADAPTER, tensors), said, base=base)


def test_base_is_asked_for_where_it_is_not_at_hand(tmp_path: Path, base: Path, qwen: Path) -> None:
    tensors = adapter_tensors(ADAPTER, llama_tensors(LLAMA))
    adapter = save_adapter(tmp_path / "adapter", ADAPTER, tensors)
    refused(adapter, "an adapter for 'meta-llama/Llama-2-7b-hf'. Give the folder .* --base")
    refused(adapter, "'model_type' is 'qwen'", base=qwen)
    refused(qwen, "is no adapter, so it has no base", base=base)
