"""A model that cannot fit into memory is refused before it is loaded, and one that fits never is.

Two starts of vLLM: some 8 s of CPU beside loading it.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.engines import create_engine
from rgpt_batch.engines.fit import Need, Room, check_fits, main_room
from rgpt_batch.engines.memory import container_limit, main_memory
from rgpt_batch.engines.vllm.memory import Devices, Sizes, check_sizes, model_sizes
from rgpt_batch.engines.vllm.query_rows.engine import QueryRowsEngine
from rgpt_batch.engines.vllm.request_engine import register_own_models
from rgpt_batch.engines.weights import least_weight_bytes
from rgpt_batch.errors import EngineStartError
from tests.conversion.checkpoints import FLAN_T5, T5, save, t5_tensors
from tests.engines.configs import float32_config
from tests.engines.t5_models import save_t5, t5_config
from tests.models import set_config

GIB = 2**30


def weights(folder: Path, num_bits: int | None = 32, **options: Any) -> int | None:
    model = ModelConfig(name=str(folder))
    return least_weight_bytes(model, num_bits=num_bits, **options)


def loaded_bytes(model_class: Any, folder: Path, dtype: torch.dtype) -> int:
    """What transformers holds of a model."""
    model = model_class.from_pretrained(folder, dtype=dtype)
    return sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_take_what_is_loaded(
    tiny_llama: Path, tiny_bloom: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    num_bits = dtype.itemsize * 8
    causal = transformers.AutoModelForCausalLM
    assert weights(tiny_llama, num_bits) == loaded_bytes(causal, tiny_llama, dtype)
    assert weights(tiny_bloom, num_bits) == loaded_bytes(causal, tiny_bloom, dtype)
    t5 = save_t5(tmp_path / "t5", FLAN_T5)
    seq2seq = transformers.AutoModelForSeq2SeqLM
    assert weights(t5, num_bits) == loaded_bytes(seq2seq, t5, dtype)
    # As it is stored, which is float32.
    assert weights(tiny_llama, None) == loaded_bytes(causal, tiny_llama, torch.float32)


def test_copies_that_are_not_loaded_do_not_count(tiny_bloom: Path, tmp_path: Path) -> None:
    tensors = load_file(tiny_bloom / "model.safetensors")
    head = tensors["transformer.word_embeddings.weight"]
    (tmp_path / "config.json").write_bytes((tiny_bloom / "config.json").read_bytes())
    save_file({**tensors, "lm_head.weight": head.clone()}, tmp_path / "model.safetensors")
    assert weights(tmp_path) == weights(tiny_bloom)
    set_config(tmp_path, tie_word_embeddings=False)
    assert weights(tmp_path) == (weights(tiny_bloom) or 0) + head.nbytes
    assert weights(tmp_path, with_head=False) == weights(tiny_bloom)
    copies = save(tmp_path / "t5", T5, t5_tensors(T5), num_shards=1)
    plain = t5_tensors(T5, copies=False)
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    extra = t5_tensors(T5)[name].nbytes
    assert weights(copies) == sum(each.nbytes for each in plain.values()) + extra


def test_a_quantised_checkpoint_takes_what_it_takes_in_the_file(tmp_path: Path) -> None:
    tensors = {
        "packed": torch.zeros(10, 4, dtype=torch.int32),
        "scale": torch.zeros(10, dtype=torch.float16),
        "norm": torch.zeros(10, dtype=torch.float32),
        "eight": torch.zeros(10, dtype=torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    assert weights(tmp_path, 16) == 160 + 20 + 20 + 10
    (tmp_path / "config.json").write_text("{}")
    assert weights(tmp_path, 16) == 160 + 20 + 20 + 20


def test_what_files_do_not_tell_is_left_to_whoever_loads_them(
    tiny_llama: Path, tmp_path: Path
) -> None:
    assert weights(Path("no/such-model")) is None
    legacy = save(tmp_path / "legacy", T5, t5_tensors(T5), num_shards=1, legacy=True)
    assert weights(legacy) is None
    (legacy / "model.safetensors").write_bytes(b"no safetensors")
    assert weights(legacy) is None
    (legacy / "model.safetensors").unlink()
    (legacy / "pytorch_model.bin").unlink()
    assert weights(legacy) is None


def test_only_what_cannot_fit_is_refused() -> None:
    need = Need(weights=9 * GIB, kv_cache=GIB, kv_cache_holds="the prompt")
    check_fits("m", need, Room(num_bytes=10 * GIB, name="a GPU's memory"), "Take more.")
    with pytest.raises(
        EngineStartError,
        match=r"^model 'm' does not fit into a GPU's memory, 10\.0 GiB: it takes at least 9\.0 GiB "
        r"for its weights and 1\.0 GiB for the prompt\. Take more\.$",
    ):
        check_fits("m", need, Room(num_bytes=10 * GIB - 1, name="a GPU's memory"), "Take more.")


# Llama-2-7b in 16 bit, 4,096 tokens: 12.6 GiB of weights and 2 GiB of keys and values.
LLAMA_7B = Sizes(
    weights=13_476_831_232,
    token=2 * 32 * 4096 * 2,
    num_kv_heads=32,
    num_layers=32,
    num_tokens=4096,
    dtype="float16",
)


def gpus(num_bytes: float, tensor: int = 1, pipeline: int = 1, share: float = 0.9) -> Devices:
    return Devices(
        is_cpu=False,
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        num_bytes=int(num_bytes),
        share=share,
    )


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (8, 1), (1, 2), (2, 4)])
def test_each_gpu_needs_room_for_its_part_of_weights_and_of_one_prompt(
    tiny_llama: Path, tensor: int, pipeline: int
) -> None:
    config = float32_config(tiny_llama, kv_cache_bytes=None)
    total = (13_476_831_232 + 2 * GIB) // (tensor * pipeline)
    check_sizes(config, LLAMA_7B, gpus(total / 0.9 + 2, tensor, pipeline))
    with pytest.raises(EngineStartError, match="2.0 GiB for the keys" if total > 9e9 else "keys"):
        check_sizes(config, LLAMA_7B, gpus((total - 2) / 0.9, tensor, pipeline))


def test_the_gpu_with_the_most_layers_holds_a_prompt(tiny_llama: Path) -> None:
    # Of 32 layers one of 3 GPUs has 11 at least: 11/32 of 2 GiB.
    most = 11 * 64 * 2**20
    check_sizes(float32_config(tiny_llama, kv_cache_bytes=most), LLAMA_7B, gpus(80 * GIB, 1, 3))
    with pytest.raises(EngineStartError, match=f"one prompt of 4,096 tokens take {most:,} bytes"):
        config = float32_config(tiny_llama, kv_cache_bytes=most - 1)
        check_sizes(config, LLAMA_7B, gpus(80 * GIB, 1, 3))
    # The others have fewer layers, so that the mean is less: 32 / (3 * 11) of it.
    config = float32_config(tiny_llama, kv_cache_bytes=33 * GIB)
    check_sizes(config, LLAMA_7B, gpus(32 * GIB + 13_476_831_232 // 3, 1, 3, share=1))
    with pytest.raises(EngineStartError, match=r"32\.0 GiB for engine\.kv_cache_bytes"):
        check_sizes(config, LLAMA_7B, gpus(32 * GIB + 13_476_831_232 // 3 - 1, 1, 3, share=1))


def test_ranks_on_cpus_share_the_machines_memory(tiny_llama: Path) -> None:
    config = float32_config(tiny_llama, kv_cache_bytes=3 * GIB)
    machine = replace(gpus(6 * GIB + 13_476_831_232, 2, share=1), is_cpu=True)
    check_sizes(config, LLAMA_7B, machine)
    check_sizes(config, LLAMA_7B, replace(machine, tensor_parallel=1, pipeline_parallel=2))
    with pytest.raises(EngineStartError, match=r"6\.0 GiB for engine\.kv_cache_bytes"):
        check_sizes(config, LLAMA_7B, replace(machine, num_bytes=machine.num_bytes - 1))
    # vLLM lets each of them take its share.
    halves = replace(machine, num_bytes=2 * GIB + 13_476_831_232, share=0.5)
    check_sizes(float32_config(tiny_llama, kv_cache_bytes=None), LLAMA_7B, halves)


def test_the_error_names_numbers_and_ways_out(tiny_llama: Path) -> None:
    config = float32_config(tiny_llama, kv_cache_bytes=None)
    with pytest.raises(EngineStartError) as caught:
        check_sizes(config, LLAMA_7B, gpus(16 * GIB))
    assert str(caught.value) == (
        f"model '{tiny_llama}' does not fit into 90% of a GPU's memory of 16.0 GiB, 14.4 GiB: it "
        "takes at least 12.6 GiB for its weights and 2.0 GiB for the keys and values of one prompt "
        "of 4,096 tokens. Take engine.tensor_parallel_size=2, a quantised checkpoint, a smaller "
        "protocol.max_length, a larger engine.gpu_memory_utilization, or GPUs with more memory."
    )
    # A cache of a given size is what vLLM takes, from all of the memory.
    config = float32_config(tiny_llama, kv_cache_bytes=3 * GIB)
    check_sizes(config, LLAMA_7B, gpus(16 * GIB, share=1))
    with pytest.raises(EngineStartError, match=r"3\.0 GiB for engine\.kv_cache_bytes\. Take"):
        check_sizes(config, LLAMA_7B, gpus(15 * GIB, share=1))
    config = float32_config(tiny_llama, kv_cache_bytes=2 * GIB - 1)
    with pytest.raises(EngineStartError, match=r"kv_cache_bytes is 2,147,483,647, but the keys"):
        check_sizes(config, LLAMA_7B, gpus(80 * GIB))


def save_huge_t5(folder: Path) -> Path:
    """A T5 whose file says that it holds 4 TB; on disk it has a few bytes."""
    save_t5(folder, T5)
    num_bytes = 4 * 10**12
    shape = [num_bytes // 4]
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, num_bytes]}
    header = json.dumps({"shared.weight": tensor}).encode()
    header += b" " * (-len(header) % 8)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + num_bytes)
    return folder


@pytest.mark.parametrize("method", ["encoder-decoder", "transformers"])
def test_transformers_is_not_given_a_model_that_cannot_fit(method: str, tmp_path: Path) -> None:
    config = t5_config(save_huge_t5(tmp_path / "t5"), method=method)
    total, _ = main_memory()
    with pytest.raises(EngineStartError) as caught:
        create_engine(config)
    assert re.search(
        r"does not fit into the machine's memory, \S+ GiB: it takes at least 3725\.3 GiB for its "
        r"weights\. Take a machine with more memory",
        str(caught.value),
    )
    assert main_room(total).num_bytes == total


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    assert container_limit(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2048\n")
    assert container_limit(tmp_path) == 2048
    (tmp_path / "memory.max").write_text("max\n")
    assert container_limit(tmp_path) == 2048
    (tmp_path / "memory.max").write_text("1024\n")
    assert container_limit(tmp_path) == 1024


@pytest.mark.vllm
def test_vllm_starts_with_a_cache_for_one_prompt_and_is_not_started_with_less(
    tiny_llama: Path,
) -> None:
    config = float32_config(tiny_llama)
    register_own_models(config)
    sizes = model_sizes(config, QueryRowsEngine.arguments(config))
    assert sizes.weights == weights(tiny_llama)
    prompt = sizes.token * sizes.num_tokens
    with pytest.raises(EngineStartError, match=r"engine\.kv_cache_bytes is [\d,]+, but the keys"):
        QueryRowsEngine(float32_config(tiny_llama, kv_cache_bytes=prompt - 1))
    # vLLM keeps one block for itself.
    block = sizes.token * 32
    QueryRowsEngine(float32_config(tiny_llama, kv_cache_bytes=prompt + block)).close()
    with pytest.raises(EngineStartError, match=r"GiB for its|MiB for its"):
        QueryRowsEngine(float32_config(tiny_llama, kv_cache_bytes=main_memory()[0]))
