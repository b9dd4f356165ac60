"""What a score costs, and models of the published sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from rgpt_batch.bench.shapes import SHAPES, find_shape, save_random_model
from rgpt_batch.errors import ConfigError


@pytest.mark.parametrize("name", SHAPES)
def test_flops_are_those_that_torch_counts(name: str, tmp_path: Path) -> None:
    shape = find_shape(f"{name}-tiny")
    folder = save_random_model(shape, tmp_path / "model", weights=True)
    config = AutoConfig.from_pretrained(folder, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    num_tokens = 96
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.arange(num_tokens)[None])
    # transformers computes the head for every token, and attention without leaving out the future.
    full_attention = 4.0 * shape.num_layers * shape.hidden_size * num_tokens**2
    causal_attention = 2.0 * shape.num_layers * shape.hidden_size * num_tokens * (num_tokens + 1)
    expected = shape.flops_per_score(num_tokens, num_tokens) - causal_attention + full_attention
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_bloom_560m_has_the_published_number_of_parameters() -> None:
    shape = SHAPES["bloom-560m"]
    # 559 million, biases and norms included.
    embeddings = shape.vocab_size * shape.hidden_size
    assert shape.num_layer_parameters + embeddings == pytest.approx(559e6, rel=0.001)


def test_models_without_weights_hold_configuration_and_tokenizer_alone(tmp_path: Path) -> None:
    folder = save_random_model(find_shape("qwen-7b"), tmp_path / "model", weights=False)
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 10 * 2**20
    assert AutoConfig.from_pretrained(folder).architectures == ["Qwen2ForCausalLM"]


def test_unknown_shapes_are_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'bloom-9b'; there are bloom-560m, "):
        find_shape("bloom-9b")


@pytest.mark.parametrize("name", SHAPES)
def test_tiny_models_run_the_same_attention_kernels(name: str) -> None:
    shape, tiny = find_shape(name), find_shape(f"{name}-tiny")
    head_size = shape.hidden_size // shape.num_heads
    assert tiny.hidden_size // tiny.num_heads == head_size
    assert (tiny.num_kv_heads < tiny.num_heads) == (shape.num_kv_heads < shape.num_heads)
    assert tiny.num_bytes < 100 * 2**20
