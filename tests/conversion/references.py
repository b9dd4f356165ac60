"""What the published architectures compute, written by hand in float32 from their description.

Nothing of rgpt_batch or transformers is used, and the tensors are the checkpoint's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

Tensors = Mapping[str, torch.Tensor]


def baichuan_logits(
    config: Mapping[str, Any], tensors: Tensors, ids: Sequence[int], *, norm_head: bool = True
) -> torch.Tensor:
    """Logits after each token, shape (num_tokens, vocab_size).

    Source: arXiv 2309.10305. Rotary positions, RMSNorm, SwiGLU; one matrix for q, k and v; each
    row of the head divided by its length.
    """
    hidden = tensors["model.embed_tokens.weight"].float()[list(ids)]
    eps, num_heads = config["rms_norm_eps"], config["num_attention_heads"]
    for number in range(config["num_hidden_layers"]):
        layer = _part(tensors, f"model.layers.{number}.")
        normed = rms_norm(hidden, layer["input_layernorm.weight"], eps)
        packed = normed @ layer["self_attn.W_pack.weight"].T
        mixed = attention(packed, num_heads, theta=10000.0)
        hidden = hidden + mixed @ layer["self_attn.o_proj.weight"].T
        normed = rms_norm(hidden, layer["post_attention_layernorm.weight"], eps)
        gate = torch.nn.functional.silu(normed @ layer["mlp.gate_proj.weight"].T)
        up = normed @ layer["mlp.up_proj.weight"].T
        hidden = hidden + (gate * up) @ layer["mlp.down_proj.weight"].T
    hidden = rms_norm(hidden, tensors["model.norm.weight"].float(), eps)
    head = tensors["lm_head.weight"].float()
    if norm_head:
        head = head / head.pow(2).sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)
    return hidden @ head.T


def qwen_logits(
    config: Mapping[str, Any], tensors: Tensors, ids: Sequence[int], *, gate: str = "w2"
) -> torch.Tensor:
    """Logits after each token, for at most seq_length tokens: logn and dynamic NTK are off there.

    Source: the published modeling code. Biases on q, k and v; the MLP is c_proj(w1·x ⊙ silu(w2·x)).
    """
    assert len(ids) <= config["seq_length"]
    hidden = tensors["transformer.wte.weight"].float()[list(ids)]
    eps, num_heads = config["layer_norm_epsilon"], config["num_attention_heads"]
    for number in range(config["num_hidden_layers"]):
        layer = _part(tensors, f"transformer.h.{number}.")
        normed = rms_norm(hidden, layer["ln_1.weight"], eps)
        packed = normed @ layer["attn.c_attn.weight"].T + layer["attn.c_attn.bias"]
        mixed = attention(packed, num_heads, theta=float(config["rotary_emb_base"]))
        hidden = hidden + mixed @ layer["attn.c_proj.weight"].T
        normed = rms_norm(hidden, layer["ln_2.weight"], eps)
        outer = {name: normed @ layer[f"mlp.{name}.weight"].T for name in ("w1", "w2")}
        gated = torch.nn.functional.silu(outer.pop(gate)) * outer.popitem()[1]
        hidden = hidden + gated @ layer["mlp.c_proj.weight"].T
    hidden = rms_norm(hidden, tensors["transformer.ln_f.weight"].float(), eps)
    return hidden @ tensors["lm_head.weight"].float().T


def rankllama_logit(
    config: Mapping[str, Any],
    tensors: Tensors,
    adapter: Mapping[str, Any],
    factors: Tensors,
    ids: Sequence[int],
) -> float:
    """The adapter's head at the last token; each projection is W x + alpha / r · B (A x).

    Source: LoRA (arXiv 2106.09685), RankLLaMA (arXiv 2310.08319).

    Args:
        config: The base's, a Llama.
        tensors: The base's.
        adapter: adapter_config.json.
        factors: The adapter's tensors.
        ids: The prompt.
    """

    def project(name: str, x: torch.Tensor) -> torch.Tensor:
        low = x @ factors[f"base_model.model.{name}.lora_A.weight"].T
        high = low @ factors[f"base_model.model.{name}.lora_B.weight"].T
        return x @ tensors[f"{name}.weight"].T + adapter["lora_alpha"] / adapter["r"] * high

    hidden, eps = tensors["model.embed_tokens.weight"][list(ids)], config["rms_norm_eps"]
    for number in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{number}."
        normed = rms_norm(hidden, tensors[f"{prefix}input_layernorm.weight"], eps)
        qkv = [project(f"{prefix}self_attn.{part}_proj", normed) for part in "qkv"]
        mixed = attention(torch.cat(qkv, dim=1), config["num_attention_heads"], theta=10000.0)
        hidden = hidden + project(f"{prefix}self_attn.o_proj", mixed)
        normed = rms_norm(hidden, tensors[f"{prefix}post_attention_layernorm.weight"], eps)
        gate = torch.nn.functional.silu(project(f"{prefix}mlp.gate_proj", normed))
        up = project(f"{prefix}mlp.up_proj", normed)
        hidden = hidden + project(f"{prefix}mlp.down_proj", gate * up)
    last = rms_norm(hidden, tensors["model.norm.weight"], eps)[-1]
    return (factors["base_model.model.score.weight"][0] @ last).item()


def bert_logits(
    config: Mapping[str, Any], tensors: Tensors, ids: Sequence[int], second_segment: int
) -> torch.Tensor:
    """Logits of a BERT classifier, shape (num_labels,); tokens from second_segment on are type 1.

    Source: BERT (arXiv 1810.04805). Every norm stands behind its sum, and the head reads the tanh
    of a layer on [CLS].
    """

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(dim=-1, keepdim=True)
        x = x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-12).sqrt()
        return x * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]

    def embedded(name: str, rows: Sequence[int]) -> torch.Tensor:
        return tensors[f"bert.embeddings.{name}_embeddings.weight"][list(rows)]

    types = [int(place >= second_segment) for place in range(len(ids))]
    hidden = embedded("word", ids) + embedded("position", range(len(ids)))
    hidden = norm("bert.embeddings", hidden + embedded("token_type", types))
    num_heads = config["num_attention_heads"]
    for number in range(config["num_hidden_layers"]):
        prefix = f"bert.encoder.layer.{number}"
        query, key, value = (
            linear(f"{prefix}.attention.self.{part}", hidden).unflatten(1, (num_heads, -1))
            for part in ("query", "key", "value")
        )
        scores = torch.einsum("qhd,khd->hqk", query, key) / query.shape[2] ** 0.5
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), value).flatten(1)
        mixed = linear(f"{prefix}.attention.output.dense", mixed)
        hidden = norm(f"{prefix}.attention.output", hidden + mixed)
        inner = torch.nn.functional.gelu(linear(f"{prefix}.intermediate.dense", hidden))
        hidden = norm(f"{prefix}.output", hidden + linear(f"{prefix}.output.dense", inner))
    return linear("classifier", linear("bert.pooler.dense", hidden[0]).tanh())


def t5_logits(config: Mapping[str, Any], tensors: Tensors, ids: Sequence[int]) -> torch.Tensor:
    """Logits of the decoder's first token after it was given its start token, shape (vocab_size,).

    Source: arXiv 1910.10683 and the published modeling code. RMSNorm before each part, attention
    without a scale, relative positions in buckets that the first layer's table turns into biases;
    a tied head takes hidden / sqrt(d_model).
    """
    embeddings = tensors["shared.weight"].float()
    distance = torch.arange(len(ids))[None, :] - torch.arange(len(ids))[:, None]
    buckets = _encoder_buckets(distance, config["relative_attention_num_buckets"])
    encoded = _t5_stack(config, tensors, "encoder", embeddings[list(ids)], buckets, None)
    start = embeddings[[config["decoder_start_token_id"]]]
    # A position's distance to itself is in bucket 0.
    origin = torch.zeros(1, 1, dtype=torch.long)
    hidden = _t5_stack(config, tensors, "decoder", start, origin, encoded)[0]
    if config.get("tie_word_embeddings", True) is False:
        return hidden @ tensors["lm_head.weight"].float().T
    return hidden / config["d_model"] ** 0.5 @ embeddings.T


def _t5_stack(
    config: Mapping[str, Any],
    tensors: Tensors,
    stack: str,
    hidden: torch.Tensor,
    buckets: torch.Tensor,
    encoded: torch.Tensor | None,
) -> torch.Tensor:
    weights, eps = _part(tensors, f"{stack}."), config["layer_norm_epsilon"]
    table = weights["block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    bias = table[buckets].permute(2, 0, 1)
    number = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("block."))
    for block in range(number):
        layers = [_part(weights, f"block.{block}.layer.{place}.") for place in range(3)]
        normed = rms_norm(hidden, layers[0]["layer_norm.weight"], eps)
        attention = _part(layers[0], "SelfAttention.")
        hidden = hidden + _t5_attention(attention, normed, normed, bias, config["num_heads"])
        if encoded is not None:
            normed = rms_norm(hidden, layers[1]["layer_norm.weight"], eps)
            attention = _part(layers[1], "EncDecAttention.")
            none = torch.zeros(1)
            hidden = hidden + _t5_attention(attention, normed, encoded, none, config["num_heads"])
        last = layers[1] if encoded is None else layers[2]
        normed = rms_norm(hidden, last["layer_norm.weight"], eps)
        if "DenseReluDense.wi.weight" in last:
            inner = (normed @ last["DenseReluDense.wi.weight"].T).clamp_min(0)
        else:
            gate = normed @ last["DenseReluDense.wi_0.weight"].T
            # GELU as the paper of 2016 approximates it.
            bent = torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3))
            inner = gate * (1 + bent) / 2 * (normed @ last["DenseReluDense.wi_1.weight"].T)
        hidden = hidden + inner @ last["DenseReluDense.wo.weight"].T
    return rms_norm(hidden, weights["final_layer_norm.weight"], eps)


def _t5_attention(
    weights: Tensors, queries: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor, num_heads: int
) -> torch.Tensor:
    query, key, value = (
        (source @ weights[f"{part}.weight"].T).unflatten(1, (num_heads, -1)).transpose(0, 1)
        for part, source in (("q", queries), ("k", keys), ("v", keys))
    )
    mixed = (query @ key.transpose(1, 2) + bias).softmax(dim=-1) @ value
    return mixed.transpose(0, 1).flatten(1) @ weights["o.weight"].T


def _encoder_buckets(distance: torch.Tensor, num_buckets: int) -> torch.Tensor:
    """Half of the buckets for tokens behind; of each half, half for single distances, to 128."""
    half, single = num_buckets // 2, num_buckets // 4
    buckets = torch.zeros_like(distance)
    for place in (distance != 0).nonzero().tolist():
        far = abs(int(distance[*place]))
        if far >= single:
            steps = math.log(far / single) / math.log(128 / single) * (half - single)
            far = min(half - 1, single + int(steps))
        buckets[*place] = far + half * (int(distance[*place]) > 0)
    return buckets


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return weight * hidden / (hidden.pow(2).mean(dim=-1, keepdim=True) + eps).sqrt()


def attention(packed: torch.Tensor, num_heads: int, *, theta: float) -> torch.Tensor:
    """Causal attention of q, k and v side by side, shape (num_tokens, 3 * hidden_size)."""
    num_tokens, width = packed.shape
    head = width // 3 // num_heads
    query, key, value = packed.view(num_tokens, 3, num_heads, head).permute(1, 2, 0, 3)
    query, key = rotated(query, theta), rotated(key, theta)
    scores = query @ key.transpose(1, 2) / head**0.5
    later = torch.ones(num_tokens, num_tokens).triu(1).bool()
    weights = scores.masked_fill(later, float("-inf")).softmax(dim=-1)
    return (weights @ value).transpose(0, 1).reshape(num_tokens, -1)


def rotated(vectors: torch.Tensor, theta: float) -> torch.Tensor:
    """Turn pairs (i, i + head / 2) by position / theta^(2i / head). Shape (heads, tokens, head)."""
    num_tokens, head = vectors.shape[1:]
    speeds = theta ** (-torch.arange(0, head, 2, dtype=torch.float32) / head)
    angles = torch.arange(num_tokens, dtype=torch.float32)[:, None] * speeds
    first, second = vectors.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def query_likelihood(
    logits: torch.Tensor, context_ids: Sequence[int], query_ids: Sequence[int]
) -> float:
    """Mean log-probability of the query's tokens, nats; logits of the whole prompt."""
    predictions = torch.log_softmax(logits[len(context_ids) - 1 : -1], dim=-1)
    picked = [predictions[place, token].item() for place, token in enumerate(query_ids)]
    return sum(picked) / len(picked)


def _part(tensors: Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
