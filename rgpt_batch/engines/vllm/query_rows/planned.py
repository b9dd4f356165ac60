"""Runs steps that we have laid out on the model that vLLM has loaded, without vLLM's scheduler.

What vLLM does for a request (make it, hash its blocks, find blocks, copy it into the batch, take it
out again) takes its host longer than a GPU needs for a small model's prompt. Here numpy lays out a
whole step, and vLLM's model, attention and cache compute it. While the device computes one step,
the host prepares the next.

This leans on more of vLLM than requests do. Where it is not there, or is used in another way than
here (several devices, several caches, other attention), requests are made.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from vllm.forward_context import set_forward_context
from vllm.v1.attention.backend import CommonAttentionMetadata

from rgpt_batch.engines.vllm.query_rows.steps import Limits, Step, lay_out
from rgpt_batch.records import TokenizedPair

# Whose metadata can be made from a step; each was tried.
_BACKENDS = ("FLASH_ATTN", "TRITON_ATTN", "CPU_ATTN")
# Steps that are under way while the host prepares the next: no device waits for its host, and
# memory holds the logprobs of few.
_AHEAD = 2
# Of each array in the one that is copied; kernels read 16 bytes at once.
_ALIGNMENT = 16


class PlannedSteps:
    """Scores pairs in steps of our own.

    Args:
        runner: vLLM's model runner. Nothing else may use it meanwhile.
        limits: Of a step.
    """

    def __init__(self, runner: Any, limits: Limits) -> None:
        self._runner = runner
        self._limits = limits
        self._shares = bool(runner.vllm_config.cache_config.enable_prefix_caching)
        self._groups = runner.attn_groups[0]
        known = {each.name for each in dataclasses.fields(CommonAttentionMetadata)}
        self._takes_host_lengths = "seq_lens_cpu_upper_bound" in known
        self._takes_deprecated = "_seq_lens_cpu" in known

    def score(
        self, pairs: Sequence[TokenizedPair], *, share: bool
    ) -> tuple[list[npt.NDArray[np.float32]], int]:
        """Compute the logprobs of each pair's query tokens, nats.

        Args:
            pairs: Those that begin alike follow each other.
            share: Whether what they have in common may be computed once, if vLLM has its prefix
                cache on.

        Returns:
            The logprobs, and how many tokens were not computed, because another prompt had them.
        """
        found: list[npt.NDArray[np.float32]] = []
        num_shared = 0
        under_way: deque[_UnderWay] = deque()
        for step in lay_out(pairs, self._limits, share=share and self._shares):
            under_way.append(self._begin(step))
            num_shared += step.num_shared
            if len(under_way) > _AHEAD:
                found += under_way.popleft().wait()
        while under_way:
            found += under_way.popleft().wait()
        return found, num_shared

    def _begin(self, step: Step) -> _UnderWay:
        with torch.inference_mode():
            return _UnderWay(self._logprobs(step), step.num_targets)

    def _logprobs(self, step: Step) -> torch.Tensor:
        device = self._runner.device
        starts = np.concatenate([[0], step.ends])
        ids, starts_there, lengths, blocks = _copy(
            (step.token_ids, starts, step.lengths, step.blocks), torch.int32, device
        )
        positions, slots, rows, targets = _copy(
            (step.positions, step.slots, step.rows, step.targets), torch.int64, device
        )
        common = CommonAttentionMetadata(
            query_start_loc=starts_there,
            query_start_loc_cpu=torch.from_numpy(starts.astype(np.int32)),
            seq_lens=lengths,
            num_reqs=len(step.lengths),
            num_actual_tokens=len(step.token_ids),
            max_query_len=int(np.diff(starts).max()),
            max_seq_len=int(step.lengths.max()),
            block_table_tensor=blocks,
            slot_mapping=slots,
            causal=True,
            **self._host_lengths(step, starts),
        )
        metadata: dict[str, Any] = {}
        slots_of: dict[str, torch.Tensor] = {}
        for group in self._groups:
            built = group.get_metadata_builder(0).build(
                common_prefix_len=0, common_attn_metadata=common
            )
            metadata |= dict.fromkeys(group.layer_names, built)
            slots_of |= dict.fromkeys(group.layer_names, slots)
        with set_forward_context(
            metadata,
            self._runner.vllm_config,
            num_tokens=len(step.token_ids),
            slot_mapping=slots_of,
        ):
            hidden = self._runner.model(
                input_ids=ids, positions=positions, intermediate_tensors=None, inputs_embeds=None
            )
        values: torch.Tensor = self._runner.model.pooler.logprobs(hidden, rows, targets)
        return values

    def _host_lengths(self, step: Step, starts: npt.NDArray[np.int64]) -> dict[str, Any]:
        lengths = torch.from_numpy(step.lengths.astype(np.int32))
        named: dict[str, Any] = {}
        if self._takes_host_lengths:
            named["seq_lens_cpu_upper_bound"] = lengths
        if self._takes_deprecated:
            computed = (step.lengths - np.diff(starts)).astype(np.int32)
            named["_seq_lens_cpu"] = lengths
            named["_num_computed_tokens_cpu"] = torch.from_numpy(computed)
        return named


class _UnderWay:
    """The answers of a step that the device may still compute."""

    def __init__(self, values: torch.Tensor, num_targets: npt.NDArray[np.int64]) -> None:
        self._values = values.to("cpu", non_blocking=True)
        self._ends = num_targets.cumsum()
        self._event: Any = None
        if values.device.type == "cuda":
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> list[npt.NDArray[np.float32]]:
        """Return the logprobs of each pair."""
        if self._event is not None:
            self._event.synchronize()
        # A copy: what the device writes to is scarce.
        return np.split(self._values.numpy().copy(), self._ends[:-1])


def planned_steps(client: Any) -> PlannedSteps | None:
    """Return what runs steps of our own, or None where requests have to be made.

    Args:
        client: The EngineCoreClient of the vLLM that was started.
    """
    runner = client
    for name in ("engine_core", "model_executor", "driver_worker", "worker", "model_runner"):
        runner = getattr(runner, name, None)
    if runner is None or not hasattr(runner, "attn_groups"):
        return None
    config, cache = runner.vllm_config, runner.kv_cache_config
    limits = config.scheduler_config.max_num_batched_tokens, config.scheduler_config.max_num_seqs
    if (
        config.parallel_config.world_size > 1
        or config.model_config.max_model_len > limits[0]
        or len(cache.kv_cache_groups) != 1
        or type(cache.kv_cache_groups[0].kv_cache_spec).__name__ != "FullAttentionSpec"
        or any(group.backend.get_name() not in _BACKENDS for group in runner.attn_groups[0])
    ):
        return None
    # A kernel may see a block of the cache as several.
    sizes = {g.get_metadata_builder(0).kv_cache_spec.block_size for g in runner.attn_groups[0]}
    if len(sizes) != 1:
        return None
    size = sizes.pop()
    ratio = cache.kv_cache_groups[0].kv_cache_spec.block_size // size
    # vLLM keeps its first block for tokens that are nobody's.
    blocks = range(ratio, cache.num_blocks * ratio)
    return PlannedSteps(
        runner, Limits(tokens=limits[0], prompts=limits[1], block_tokens=size, blocks=blocks)
    )


def _copy(
    arrays: Sequence[npt.NDArray[Any]], dtype: torch.dtype, device: torch.device
) -> list[torch.Tensor]:
    """Bring arrays to the device in one copy, for which nobody waits."""
    places, end = [], 0
    for array in arrays:
        places.append(end)
        end += -(-array.size // _ALIGNMENT) * _ALIGNMENT
    all_of_them = torch.empty(end, dtype=dtype, pin_memory=device.type == "cuda")
    view = all_of_them.numpy()
    for array, place in zip(arrays, places, strict=True):
        view[place : place + array.size] = array.reshape(-1)
    there = all_of_them.to(device, non_blocking=True)
    return [
        there[place : place + array.size].view(array.shape)
        for array, place in zip(arrays, places, strict=True)
    ]
