"""The engine for T5 rerankers, against a float32 computation written by hand.

The models are random (0.2 M parameters), in the published layouts. All of the file takes some 30 s
of CPU, half of it in two processes of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rgpt_batch.engines import create_engine
from rgpt_batch.engines.encoder_decoder import EncoderDecoderEngine
from rgpt_batch.engines.references import Seq2SeqReference
from rgpt_batch.errors import ConfigError, EngineDead, EngineStartError
from rgpt_batch.records import LabelPrompt
from tests.commands.start import run
from tests.conversion.checkpoints import FLAN_T5, T5
from tests.engines.configs import open_engine
from tests.engines.t5_models import (
    MONOT5,
    RANKT5,
    expected_logits,
    label_prompt,
    save_t5,
    t5_config,
)
from tests.models import set_config

# Of a logit in float32; logits are up to some 3. Measured: 4e-6.
TOLERANCE = 1e-5
LENGTHS = (1, 2, 7, 8, 9, 30, 61, 130, 300, 9)
PROMPTS = [label_prompt(length, seed) for seed, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def monot5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_t5(tmp_path_factory.mktemp("t5") / "monot5", T5)


@pytest.fixture(scope="module")
def flan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gates, a head of its own, more layers in the decoder than in the encoder."""
    return save_t5(tmp_path_factory.mktemp("t5") / "flan", FLAN_T5)


@pytest.mark.parametrize("score", [MONOT5, RANKT5], ids=["monot5", "rankt5"])
@pytest.mark.parametrize("config", [T5, FLAN_T5], ids=["tied", "flan"])
def test_logits_are_those_of_the_architecture_in_batches_of_mixed_lengths(
    monot5: Path, flan: Path, config: dict[str, Any], score: Mapping[str, str]
) -> None:
    model = monot5 if config is T5 else flan
    tokenizer = AutoTokenizer.from_pretrained(model)
    names = [score[name] for name in ("not_relevant", "relevant") if name in score]
    labels = tokenizer.convert_tokens_to_ids(names)
    with open_engine(t5_config(model, score, max_num_batched_tokens=300)) as engine:
        answers = engine.score(PROMPTS)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert (answer.values.dtype, answer.values.shape) == (np.float32, (len(labels),))
        expected = expected_logits(config, prompt, labels)
        np.testing.assert_allclose(answer.values, expected, rtol=0, atol=TOLERANCE)


def test_engine_and_reference_agree_whatever_the_batches(flan: Path) -> None:
    expected = np.array([e.values for e in Seq2SeqReference(t5_config(flan)).score(PROMPTS)])
    small_steps = t5_config(flan, max_num_batched_tokens=8)
    for config in (small_steps, t5_config(flan, max_num_seqs=3), t5_config(flan)):
        with open_engine(config) as engine:
            assert engine.score([]) == []
            found = np.array([each.values for each in engine.score(PROMPTS)])
            backwards = np.array([each.values for each in engine.score(PROMPTS[::-1])])[::-1]
            repeated = engine.score([PROMPTS[5], PROMPTS[8], PROMPTS[5]])
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(backwards, expected, rtol=0, atol=TOLERANCE)
        assert (repeated[0].values == repeated[2].values).all()


def test_deterministic_bits_do_not_depend_on_the_batch(flan: Path) -> None:
    def bits(deterministic: bool, *batches: list[LabelPrompt]) -> list[bytes]:
        config = t5_config(flan, deterministic=deterministic)
        with open_engine(config) as engine:
            return [a.values.tobytes() for batch in batches for a in engine.score(batch)]

    alone = [[prompt] for prompt in PROMPTS]
    assert bits(True, PROMPTS) == bits(True, *alone)
    # The control: padding rounds otherwise.
    assert bits(False, PROMPTS) != bits(False, *alone)


def test_auto_chooses_this_engine(monot5: Path) -> None:
    with open_engine(t5_config(monot5, method="auto")) as engine:
        assert isinstance(engine, EncoderDecoderEngine)
        assert engine.passed_over == ()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(monot5: Path, dtype: str) -> None:
    config = t5_config(monot5)
    expected = np.array([e.values for e in Seq2SeqReference(config).score(PROMPTS)])
    with open_engine(config.with_options({"model.dtype": dtype})) as engine:
        found = np.array([each.values for each in engine.score(PROMPTS)])
    # Measured: 0.05 and 0.007, of logits up to 3; transformers' own decoder is 0.06 and 0.009 off.
    assert np.abs(found - expected).max() <= (0.1 if dtype == "bfloat16" else 0.02)


# Memory


def _score_with_little_memory(
    model: Path, num_prompts: int, num_tokens: int, megabytes: int
) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.engines.score_with_little_memory"]
    done = run([*command, *map(str, (model, num_prompts, num_tokens, megabytes))])
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_batches_become_smaller_until_memory_suffices(monot5: Path) -> None:
    # Attention alone takes 3 heads · 512² · 4 bytes = 3 MB for a prompt, 200 MB for all of them.
    result = _score_with_little_memory(monot5, 64, 512, 120)
    assert 512 <= result["max_tokens"] < 64 * 512
    prompts = [label_prompt(512 - seed % 2, seed) for seed in range(64)]
    expected = [e.values for e in Seq2SeqReference(t5_config(monot5)).score(prompts)]
    np.testing.assert_allclose(result["logits"], expected, rtol=0, atol=TOLERANCE)


def test_prompt_that_memory_does_not_suffice_for_ends_the_engine_with_a_clear_message(
    monot5: Path,
) -> None:
    # 3 heads · 16,384² · 4 bytes = 3 GB.
    result = _score_with_little_memory(monot5, 2, 16_384, 500)
    assert result["error"].startswith("out of memory with one prompt of 16384 tokens. Lower")


# What is refused


def test_prompt_with_ids_beyond_the_vocabulary_ends_the_engine(monot5: Path) -> None:
    with open_engine(t5_config(monot5)) as engine:
        prompt = label_prompt(5)
        prompt.token_ids[2] = 5000
        with pytest.raises(EngineDead, match="transformers failed: IndexError"):
            engine.score([prompt])


def _refused(model: Path, said: str, score: Mapping[str, str] = MONOT5, **engine: Any) -> None:
    with pytest.raises((ConfigError, EngineStartError), match=said):
        create_engine(t5_config(model, score, **engine))


def test_what_the_engine_cannot_do_is_refused(monot5: Path, tiny_llama: Path) -> None:
    _refused(monot5, "runs on one GPU", tensor_parallel_size=2)
    _refused(monot5, "runs on one GPU", pipeline_parallel_size=2)
    _refused(monot5, "engine.vllm_args would change nothing", vllm_args={"seed": 1})
    _refused(monot5, "label 'true' is no token", {**MONOT5, "relevant": "true"})
    llama = {"kind": "seq2seq", "relevant": "a"}
    _refused(tiny_llama, f"cannot load model '{tiny_llama}'", llama)


def test_quantised_weights_are_refused_before_they_are_loaded(monot5: Path, tmp_path: Path) -> None:
    folder = _changed(monot5, tmp_path / "quantised")
    set_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    (folder / "model.safetensors").write_bytes(b"no weights")
    _refused(folder, "has quantised weights .*computes with plain ones")


def _changed(model: Path, target: Path, **tensors: float | None) -> Path:
    """Copy a model, with some tensors scaled or left out."""
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    found = load_file(target / "model.safetensors")
    for name, factor in tensors.items():
        changed = found.pop(name)
        if factor is not None:
            found[name] = changed * factor
    save_file(found, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_checkpoint_without_a_layer_or_its_head_is_refused(
    monot5: Path, flan: Path, tmp_path: Path
) -> None:
    layer = "decoder.block.1.layer.1.EncDecAttention.k.weight"
    cut = _changed(monot5, tmp_path / "cut", **{layer: None})
    _refused(cut, f"lacks 1 tensors, such as {layer}")
    # transformers would take the embeddings for the head, without the factor that goes with them.
    headless = _changed(flan, tmp_path / "headless", **{"lm_head.weight": None})
    _refused(headless, "asks for a head of its own, but the checkpoint has no")
    _refused(headless, "asks for a head of its own", method="transformers")
    set_config(tmp_path / "headless", tie_word_embeddings=True)
    create_engine(t5_config(headless)).close()
    set_config(flan_copy := _changed(flan, tmp_path / "flan"), tie_word_embeddings=True)
    _refused(flan_copy, "ties the head to the embeddings, but")


def test_label_that_the_head_has_no_row_for_is_refused(monot5: Path, tmp_path: Path) -> None:
    small = _changed(monot5, tmp_path / "small")
    tensors = load_file(small / "model.safetensors")
    tensors["shared.weight"] = tensors["shared.weight"][:1050].clone()
    save_file(tensors, small / "model.safetensors", metadata={"format": "pt"})
    set_config(small, vocab_size=1050)
    _refused(small, "label '<extra_id_10>' has id 1,089, but .* only 1,050 rows", RANKT5)


def test_self_test_refuses_a_model_that_does_not_read_its_prompt(
    monot5: Path, tmp_path: Path
) -> None:
    name = "encoder.final_layer_norm.weight"
    _refused(
        _changed(monot5, tmp_path / "deaf", **{name: 0.0}), "different prompts the same logits"
    )
    broken = _changed(monot5, tmp_path / "broken", **{name: float("nan")})
    _refused(broken, "gave logits from nan to nan in its self-test")


def test_checkpoint_that_holds_the_embeddings_once_is_complete(monot5: Path) -> None:
    names = set(load_file(monot5 / "model.safetensors"))
    assert not {"lm_head.weight", "encoder.embed_tokens.weight"} & names
    model = Seq2SeqReference(t5_config(monot5))._model
    assert model.lm_head.weight is model.encoder.embed_tokens.weight
    assert torch.equal(
        model.shared.weight, load_file(monot5 / "model.safetensors")["shared.weight"]
    )
