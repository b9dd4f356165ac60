"""Small random checkpoints in exactly the published layouts. Nothing of transformers is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]

# As monoT5's of 2020; the tokenizer has 1,000 pieces and 100 extra ids, and rows are left over.
T5: dict[str, Any] = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 128,
    "d_kv": 16,
    "d_model": 64,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 3,
    "num_layers": 2,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 1128,
}
# As flan-T5's, which RankT5s were made from: gates, and a head of its own.
FLAN_T5: dict[str, Any] = T5 | {
    "feed_forward_proj": "gated-gelu",
    "num_decoder_layers": 3,
    "tie_word_embeddings": False,
}

BAICHUAN: dict[str, Any] = {
    "_from_model_config": True,
    "architectures": ["BaichuanForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 176,
    "max_position_embeddings": 4096,
    "model_max_length": 4096,
    "model_type": "baichuan",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.29.2",
    "use_cache": True,
    "vocab_size": 1000,
    "z_loss_weight": 0,
}
QWEN: dict[str, Any] = {
    "architectures": ["QWenLMHeadModel"],
    "auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
    "attn_dropout_prob": 0.0,
    "bf16": False,
    "emb_dropout_prob": 0.0,
    "fp16": False,
    "fp32": False,
    "hidden_size": 128,
    "intermediate_size": 192,
    "initializer_range": 0.02,
    "kv_channels": 32,
    "layer_norm_epsilon": 1e-06,
    "max_position_embeddings": 8192,
    "model_type": "qwen",
    "no_bias": True,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "onnx_safe": None,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": 2048,
    "tie_word_embeddings": False,
    "tokenizer_type": "QWenTokenizer",
    "use_cache": True,
    "use_dynamic_ntk": True,
    "use_flash_attn": "auto",
    "use_logn_attn": True,
    "vocab_size": 1000,
}
# The names that the files of August 2023 used.
QWEN_OLD_NAMES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "ffn_hidden_size",
    "max_position_embeddings": "n_positions",
}
# Google's bert_config.json: 11 keys, and nothing says what model they belong to.
BERT: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 192,
    "max_position_embeddings": 512,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 200,
}
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 172,
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 1000,
}
ADAPTER: dict[str, Any] = {
    "auto_mapping": None,
    "base_model_name_or_path": "meta-llama/Llama-2-7b-hf",
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 8,
    "revision": None,
    "target_modules": [
        *("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")
    ],
    "task_type": "SEQ_CLS",
}


class Random:
    """Random weights of one seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def matrix(self, *shape: int, scale: float = 0.15) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator) * scale

    def norm(self, size: int) -> torch.Tensor:
        return 1 + 0.2 * torch.randn(size, generator=self._generator)


def baichuan_tensors(config: Mapping[str, Any], seed: int = 0) -> Tensors:
    random, hidden, vocab = Random(seed), config["hidden_size"], config["vocab_size"]
    inner = config["intermediate_size"]
    tensors = {"model.embed_tokens.weight": random.matrix(vocab, hidden, scale=1)}
    for number in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{number}."
        tensors |= {
            f"{prefix}self_attn.W_pack.weight": random.matrix(3 * hidden, hidden),
            f"{prefix}self_attn.o_proj.weight": random.matrix(hidden, hidden),
            f"{prefix}self_attn.rotary_emb.inv_freq": torch.ones(16),
            f"{prefix}mlp.gate_proj.weight": random.matrix(inner, hidden),
            f"{prefix}mlp.up_proj.weight": random.matrix(inner, hidden),
            f"{prefix}mlp.down_proj.weight": random.matrix(hidden, inner),
            f"{prefix}input_layernorm.weight": random.norm(hidden),
            f"{prefix}post_attention_layernorm.weight": random.norm(hidden),
        }
    # Rows of very different lengths, so that a head that is not normalised gives other logits.
    lengths = torch.linspace(0.2, 5, vocab)[:, None]
    head = random.matrix(vocab, hidden, scale=3) * lengths
    return tensors | {"model.norm.weight": random.norm(hidden), "lm_head.weight": head}


def qwen_tensors(config: Mapping[str, Any], seed: int = 0) -> Tensors:
    random, hidden, vocab = Random(seed), config["hidden_size"], config["vocab_size"]
    half = config["intermediate_size"] // 2
    tensors = {"transformer.wte.weight": random.matrix(vocab, hidden, scale=1)}
    for number in range(config["num_hidden_layers"]):
        prefix = f"transformer.h.{number}."
        tensors |= {
            f"{prefix}ln_1.weight": random.norm(hidden),
            f"{prefix}attn.c_attn.weight": random.matrix(3 * hidden, hidden),
            f"{prefix}attn.c_attn.bias": random.matrix(3 * hidden, scale=1),
            f"{prefix}attn.c_proj.weight": random.matrix(hidden, hidden),
            f"{prefix}attn.masked_bias": torch.tensor(-1e4),
            f"{prefix}attn.rotary_emb.inv_freq": torch.ones(16),
            f"{prefix}ln_2.weight": random.norm(hidden),
            f"{prefix}mlp.w1.weight": random.matrix(half, hidden),
            f"{prefix}mlp.w2.weight": random.matrix(half, hidden),
            f"{prefix}mlp.c_proj.weight": random.matrix(hidden, half),
        }
    return tensors | {
        "transformer.ln_f.weight": random.norm(hidden),
        "lm_head.weight": random.matrix(vocab, hidden),
    }


def llama_tensors(config: Mapping[str, Any], seed: int = 0) -> Tensors:
    """Those of a Llama, made from a Baichuan's by splitting what that has in one piece."""
    tensors = {}
    for name, tensor in baichuan_tensors(config, seed).items():
        if "W_pack" in name:
            for part, rows in zip("qkv", tensor.split(config["hidden_size"]), strict=True):
                tensors[name.replace("W_pack", f"{part}_proj")] = rows.clone()
        else:
            tensors[name] = tensor
    # Baichuan's rows are for a head that divides them by their length.
    return tensors | {"lm_head.weight": tensors["lm_head.weight"] / 30}


def adapter_tensors(config: Mapping[str, Any], base: Tensors, seed: int = 1) -> Tensors:
    random, rank = Random(seed), config["r"]
    hidden = base["model.norm.weight"].shape[0]
    tensors = {"base_model.model.score.weight": random.matrix(1, hidden)}
    for name, weight in base.items():
        if name.split(".")[-2] in config["target_modules"]:
            rows, columns = weight.shape
            prefix = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{prefix}.lora_A.weight"] = random.matrix(rank, columns)
            tensors[f"{prefix}.lora_B.weight"] = random.matrix(rows, rank)
    return tensors


def bert_tensors(config: Mapping[str, Any], *, num_labels: int, old_names: bool) -> Tensors:
    random, hidden, inner = Random(3), config["hidden_size"], config["intermediate_size"]
    scale, shift = ("gamma", "beta") if old_names else ("weight", "bias")
    tensors: Tensors = {"bert.embeddings.position_ids": torch.arange(512)[None]}

    def linear(name: str, rows: int, columns: int) -> None:
        tensors[f"{name}.weight"] = random.matrix(rows, columns, scale=0.3)
        tensors[f"{name}.bias"] = random.matrix(rows, scale=0.3)

    def layer_norm(name: str) -> None:
        tensors[f"{name}.LayerNorm.{scale}"] = random.norm(hidden)
        tensors[f"{name}.LayerNorm.{shift}"] = random.matrix(hidden)

    for name, rows in (
        ("word", config["vocab_size"]),
        ("position", config["max_position_embeddings"]),
        ("token_type", config["type_vocab_size"]),
    ):
        tensors[f"bert.embeddings.{name}_embeddings.weight"] = random.matrix(rows, hidden, scale=1)
    layer_norm("bert.embeddings")
    for number in range(config["num_hidden_layers"]):
        prefix = f"bert.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            linear(f"{prefix}.attention.self.{part}", hidden, hidden)
        linear(f"{prefix}.attention.output.dense", hidden, hidden)
        layer_norm(f"{prefix}.attention.output")
        linear(f"{prefix}.intermediate.dense", inner, hidden)
        linear(f"{prefix}.output.dense", hidden, inner)
        layer_norm(f"{prefix}.output")
    linear("bert.pooler.dense", hidden, hidden)
    linear("classifier", num_labels, hidden)
    return tensors


def t5_tensors(config: Mapping[str, Any], *, copies: bool = True) -> Tensors:
    """All tensors of a T5, with the copies of its embeddings that old files hold."""
    hidden, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    chosen = torch.Generator().manual_seed(5)
    tensors: Tensors = {}

    def add(name: str, *shape: int, scale: float) -> None:
        tensors[f"{name}.weight"] = torch.randn(shape, generator=chosen) * scale

    add("shared", config["vocab_size"], hidden, scale=1.0)
    gated = config.get("feed_forward_proj", "relu").startswith("gated")
    num_layers = config["num_layers"]
    stacks = {"encoder": num_layers, "decoder": config.get("num_decoder_layers", num_layers)}
    for stack, number in stacks.items():
        attentions = ["SelfAttention"] + ["EncDecAttention"] * (stack == "decoder")
        for block in range(number):
            prefix = f"{stack}.block.{block}.layer"
            for place, attention in enumerate(attentions):
                for part in "qkv":
                    scale = (hidden * config["d_kv"]) ** -0.5 if part == "q" else hidden**-0.5
                    add(f"{prefix}.{place}.{attention}.{part}", inner, hidden, scale=2 * scale)
                add(f"{prefix}.{place}.{attention}.o", hidden, inner, scale=inner**-0.5)
                add(f"{prefix}.{place}.layer_norm", hidden, scale=1.0)
            place = len(attentions)
            for part in ("wi_0", "wi_1") if gated else ("wi",):
                name = f"{prefix}.{place}.DenseReluDense.{part}"
                add(name, config["d_ff"], hidden, scale=hidden**-0.5)
            name = f"{prefix}.{place}.DenseReluDense.wo"
            add(name, hidden, config["d_ff"], scale=config["d_ff"] ** -0.5)
            add(f"{prefix}.{place}.layer_norm", hidden, scale=1.0)
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"
        add(bias, config["relative_attention_num_buckets"], config["num_heads"], scale=1.0)
        add(f"{stack}.final_layer_norm", hidden, scale=1.0)
    if config.get("tie_word_embeddings", True) is False:
        add("lm_head", config["vocab_size"], hidden, scale=0.1)
    elif copies:
        tensors["lm_head.weight"] = tensors["shared.weight"]
    if copies:
        for stack in stacks:
            tensors[f"{stack}.embed_tokens.weight"] = tensors["shared.weight"]
        name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias"
        add(name, config["relative_attention_num_buckets"], config["num_heads"], scale=1.0)
    return tensors


def save(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    num_shards: int = 2,
    legacy: bool = False,
    config_name: str = "config.json",
) -> Path:
    """Write a config and pickled weights, in shards with an index or as one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_name).write_text(json.dumps(config, indent=2))
    names = list(tensors)
    if num_shards == 1:
        _torch_save(tensors, folder / "pytorch_model.bin", legacy=legacy)
        return folder
    weight_map: dict[str, str] = {}
    for number in range(num_shards):
        file = f"pytorch_model-{number + 1:05}-of-{num_shards:05}.bin"
        shard = {name: tensors[name] for name in names[number::num_shards]}
        _torch_save(shard, folder / file, legacy=legacy)
        weight_map |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def save_adapter(folder: Path, config: Mapping[str, Any], tensors: Tensors) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    torch.save(tensors, folder / "adapter_model.bin")
    return folder


def _torch_save(tensors: Tensors, file: Path, *, legacy: bool) -> None:
    torch.save(tensors, file, _use_new_zipfile_serialization=not legacy)
