"""What the published architectures compute, written by hand in float32 from their description.

Nothing of rgpt_batch or transformers is used, and the tensors are the checkpoint's own.
"""

from __future__ import annotations

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
