"""vLLM's attention kernels, as the models of this project call them, against float32.

    python -m benchmarks.gpu.attention --to attention.md

FlashAttention 2 computes Bloom's ALiBi, version 3 on Hopper GPUs everything else. Prompts of
different lengths, some with a cached beginning, in blocks of 16 tokens. Exit code 0: all agree.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.tables import Table
from rgpt_batch.bench.hardware import hardware_name, has_gpu

# Version, size of a head, heads, ALiBi.
KERNELS = (
    (2, 64, 16, True),
    (2, 80, 32, True),
    (2, 96, 16, True),
    (2, 128, 32, True),
    (3, 64, 9, False),
    (3, 128, 32, False),
)
# Query tokens and, with what is cached, all tokens of each prompt.
PROMPTS = ((90, 90), (8, 90), (1, 33), (300, 300), (17, 511), (64, 64))
_BLOCK = 16
_MAX_BLOCKS = 64
# Of the norm; bfloat16 makes some 3e-3.
_TOLERANCE = 2e-2


def reference(query: Any, key: Any, value: Any, slopes: Any) -> Any:
    """Compute one prompt's attention in float32; shapes (tokens, heads, size of a head)."""
    num_queries, num_keys = len(query), len(key)
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) * query.shape[-1] ** -0.5
    rows = torch.arange(num_queries, device=query.device)[:, None] + num_keys - num_queries
    columns = torch.arange(num_keys, device=query.device)[None]
    if slopes is not None:
        scores = scores - slopes[:, None, None] * (rows - columns).abs()
    weights = scores.masked_fill(columns > rows, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value.float())


def compare(version: int, head_size: int, num_heads: int, has_alibi: bool) -> tuple[float, float]:
    """Return the relative error, and the seconds of the first call."""
    from vllm.vllm_flash_attn import flash_attn_varlen_func

    torch.manual_seed(head_size)
    device = "cuda"
    slopes = 2.0 ** -torch.linspace(0.5, 8, num_heads, device=device) if has_alibi else None
    num_blocks = [-(-total // _BLOCK) for _, total in PROMPTS]
    order = torch.randperm(sum(num_blocks), device=device).int()
    # As vLLM lays it out: keys and values side by side.
    cache = torch.randn(len(order), num_heads, _BLOCK, 2 * head_size, device=device).bfloat16()
    keys, values = cache.transpose(1, 2).split(head_size, dim=-1)
    table = torch.zeros(len(PROMPTS), _MAX_BLOCKS, dtype=torch.int32, device=device)
    own = order.split(num_blocks)
    for row, blocks in enumerate(own):
        table[row, : len(blocks)] = blocks
    num_queries = [new for new, _ in PROMPTS]
    query = torch.randn(sum(num_queries), num_heads, head_size, device=device).bfloat16()
    out = torch.full_like(query, float("nan"))
    starts = torch.tensor([0, *num_queries], device=device).cumsum(0).int()
    started = time.perf_counter()
    flash_attn_varlen_func(
        q=query,
        k=keys,
        v=values,
        out=out,
        cu_seqlens_q=starts,
        max_seqlen_q=max(num_queries),
        seqused_k=torch.tensor([total for _, total in PROMPTS], device=device).int(),
        max_seqlen_k=max(total for _, total in PROMPTS),
        softmax_scale=head_size**-0.5,
        causal=True,
        alibi_slopes=slopes,
        block_table=table,
        fa_version=version,
    )
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    parts = []
    for part, blocks, (_, total) in zip(query.split(num_queries), own, PROMPTS, strict=True):
        key, value = (
            each[blocks.long()].reshape(-1, num_heads, head_size)[:total] for each in (keys, values)
        )
        parts.append(reference(part, key, value, slopes))
    expected = torch.cat(parts)
    return float((out.float() - expected).norm() / expected.norm()), seconds


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--to", type=Path, required=True, help="Markdown file")
    given = parser.parse_args()
    table = Table(
        given.to,
        f"Attention kernels against float32, {hardware_name()}",
        (
            *("FlashAttention", "head size", "ALiBi", "relative error"),
            *("first call, s", "verdict"),
        ),
    )
    all_agree = True
    for version, head_size, num_heads, has_alibi in KERNELS:
        cells = (version, head_size, "yes" if has_alibi else "no")
        if not has_gpu():
            table.add(*cells, None, None, "not measured: there is no GPU")
            continue
        try:
            error, seconds = compare(version, head_size, num_heads, has_alibi)
        except Exception as problem:
            # Whatever a kernel that this GPU does not have raises.
            cause = f"{type(problem).__name__}: {problem}".splitlines()[0]
            table.add(*cells, None, None, f"not measured: {cause}")
            all_agree = False
        else:
            is_good = error < _TOLERANCE
            table.add(*cells, error, seconds, "agrees" if is_good else "**DIFFERS**")
            all_agree &= is_good
    return 0 if all_agree else 1


if __name__ == "__main__":
    sys.exit(main())
