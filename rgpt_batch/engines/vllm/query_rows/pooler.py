"""From hidden states to log-likelihoods of query tokens; runs in vLLM's workers.

A request's prompt is the pair without its last token, which predicts nothing that is asked for:

    tokens   [ Document : ... Query : | when should a baby walk ]
    prompt   [ Document : ... Query :   when should a baby ]
    rows                            ^   ^    ^      ^ ^      each predicts the token after it

So a prompt of P tokens with a query of n tokens needs the rows P - n to P - 1. They may come in
several steps (chunked prefill), twice (preemption), or never (they are in the prefix cache).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from vllm.model_executor.layers.pooler import Pooler

from rgpt_batch.engines.vllm.arguments import BATCH_INVARIANT
from rgpt_batch.engines.vllm.hooks import missing
from rgpt_batch.engines.vllm.query_rows.parts import LOGPROBS_HOOKS
from rgpt_batch.engines.vllm.query_rows.request import TOKEN_BYTES, query_of
from rgpt_batch.engines.vllm.query_rows.steps import runs

# Of one block of float32 logits; 512 MiB are 535 rows of a vocabulary of 250,880 tokens.
_MAX_LOGITS_BYTES = 512 * 2**20
# On CPU the softmax works on blocks that stay in the cache: 1.8 times faster than on all 90 rows of
# a vocabulary of 250,880, 2.9 times on 512 rows of 49,152 (bfloat16, 2 cores of an EPYC).
_CPU_BLOCK_BYTES = 8 * 2**20


class LogitsPooler(Pooler):  # type: ignore[misc]
    """A pooler that computes logits at a few rows.

    Args:
        compute_logits: Turns rows of hidden states, shape (rows, hidden_size), into logits, shape
            (rows, vocab_size). It may write into its argument.
        vocab_size: The larger it is, the fewer rows are computed at once.
    """

    def __init__(self, compute_logits: Callable[[torch.Tensor], Any], vocab_size: int) -> None:
        super().__init__()
        self._compute_logits = compute_logits
        self._max_rows = rows_per_block(vocab_size)

    def get_supported_tasks(self) -> set[str]:
        """Name the only task. Requests for `classify` may read the prefix cache."""
        return {"classify"}


class QueryRowsPooler(LogitsPooler):
    """Computes logits at the rows that predict query tokens, and nowhere else."""

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[Any]:
        """Score the rows that this step has computed.

        Args:
            hidden_states: Shape (num_scheduled_tokens, hidden_size), request after request.
            pooling_metadata: vLLM's PoolingMetadata of the step.

        Returns:
            For every request None, or, in the step that ends its prompt, its logprobs: float32,
            shape (num_query_tokens,), nats, on the host; shorter where a row was not computed.
        """
        cursor = pooling_metadata.get_pooling_cursor()
        prompt_lens = pooling_metadata.prompt_lens.tolist()
        ends = cursor.seq_lens_cpu.tolist()
        queries = self._queries(pooling_metadata.pooling_params, prompt_lens)

        first_rows: list[int] = []  # of hidden_states
        counts: list[int] = []
        first_tokens: list[int] = []  # predicted by the first row, counted from the query's start
        targets: list[bytes] = []
        offset = 0
        for query, prompt_len, end, num_scheduled in zip(
            queries, prompt_lens, ends, cursor.num_scheduled_tokens_cpu.tolist(), strict=True
        ):
            start = end - num_scheduled
            first_needed = prompt_len - len(query) // TOKEN_BYTES
            first = max(start, first_needed)
            count = max(end - first, 0)
            token = first - first_needed
            first_rows.append(offset + first - start)
            counts.append(count)
            first_tokens.append(token)
            targets.append(query[token * TOKEN_BYTES : (token + count) * TOKEN_BYTES])
            offset += num_scheduled

        values = self._step_logprobs(hidden_states, first_rows, counts, b"".join(targets))
        # One copy for all requests. vLLM waits for the device before it reads a pooler's output.
        parts = values.to("cpu", non_blocking=True).split(counts)

        outputs: list[Any] = []
        for index, (query, count) in enumerate(zip(queries, counts, strict=True)):
            is_done = ends[index] == prompt_lens[index]
            if is_done and count == len(query) // TOKEN_BYTES:
                outputs.append(parts[index])
                continue
            # Chunked prefill: what earlier steps have computed waits on the device.
            seen = pooling_metadata.pooling_states[index].hidden_states_cache
            _extend(seen, first_tokens[index], values.split(counts)[index])
            outputs.append(seen[0].to("cpu", non_blocking=True) if is_done else None)
        return outputs

    def _queries(self, all_params: Sequence[Any], prompt_lens: Sequence[int]) -> list[bytes]:
        """Get the query of every request, as the bytes of its int32 token ids.

        When vLLM measures how much memory a step takes, its requests have no query. Then queries
        are made up that are long enough for a full block of logits.
        """
        num_rows = self._max_rows // len(prompt_lens) + 1
        return [
            bytes(TOKEN_BYTES * min(num_rows, prompt_len))
            if params.extra_kwargs is None
            else query_of(params)
            for params, prompt_len in zip(all_params, prompt_lens, strict=True)
        ]

    def _step_logprobs(
        self,
        hidden_states: torch.Tensor,
        first_rows: Sequence[int],
        counts: Sequence[int],
        targets: bytes,
    ) -> torch.Tensor:
        """Compute log p(target) at runs of rows; float32, shape (sum(counts),), on the device."""
        device = hidden_states.device
        rows = runs(np.array(first_rows, dtype=np.int64), np.array(counts, dtype=np.int64))
        target_ids = np.frombuffer(targets, dtype=np.int32).astype(np.int64)
        # In one array, so that one copy takes both to the device. Nobody waits for it here.
        indices = torch.from_numpy(np.stack([rows, target_ids]))
        if device.type == "cuda":
            indices = indices.pin_memory()
        indices = indices.to(device, non_blocking=True)
        return self.logprobs(hidden_states, indices[0], indices[1])

    def logprobs(
        self, hidden_states: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Compute log p(target) at rows.

        Args:
            hidden_states: Shape (tokens, hidden_size).
            rows: Shape (R,), int64, indices of hidden states.
            targets: Shape (R,), int64, the token that each row predicts.

        Returns:
            float32, shape (R,), nats, on the device.
        """
        blocks = [
            _token_logprobs(self._compute_logits(hidden_states[some_rows]), some_targets)
            for some_rows, some_targets in zip(
                rows.split(self._max_rows), targets.split(self._max_rows), strict=True
            )
            if len(some_rows)
        ]
        return torch.cat(blocks) if blocks else torch.empty(0, device=hidden_states.device)


def rows_per_block(vocab_size: int) -> int:
    """Return for how many rows logits are computed at once."""
    return max(1, _MAX_LOGITS_BYTES // (4 * vocab_size))


def _extend(seen: list[torch.Tensor], first_token: int, values: torch.Tensor) -> None:
    """Append a step's logprobs to those of earlier steps.

    A request that was preempted starts again, and what it computes then replaces what it had. Where
    rows are missing in between, nothing is appended, so that the result stays too short.

    Args:
        seen: Holds one tensor, the logprobs of the query's first tokens; or nothing yet.
        first_token: Index in the query of the first of the new values.
        values: The new values.
    """
    if not seen:
        seen.append(values[:0])
    if len(seen[0]) >= first_token:
        seen[0] = torch.cat([seen[0][:first_token], values])


@functools.cache
def _has_kernel() -> bool:
    return not missing(LOGPROBS_HOOKS)


def _token_logprobs(logits: Any, targets: torch.Tensor) -> torch.Tensor:
    """Normalise in float32 and pick one token per row.

    Args:
        logits: Shape (rows, vocab_size), any float type. None on ranks to which vLLM gives no
            logits; it drops their answers.
        targets: Shape (rows,), int64.
    """
    if logits is None:
        return torch.empty(len(targets), device=targets.device)
    if logits.device.type == "cuda" and _has_kernel():
        from vllm.v1.worker.gpu.sample.logprob import compute_token_logprobs

        return compute_token_logprobs(logits, targets[:, None])[:, 0]
    num_rows = len(targets)
    if logits.device.type == "cpu":
        num_rows = max(1, _CPU_BLOCK_BYTES // (4 * logits.shape[1]))
    blocks = []
    for block, tokens in zip(logits.split(num_rows), targets.split(num_rows), strict=True):
        block = block.float()
        if os.environ.get(BATCH_INVARIANT) == "1":
            # The kernel above takes each row by itself. Of all that torch can do, vLLM has a kernel
            # whose bits do not depend on the other rows for this alone.
            block = torch.log_softmax(block, dim=1)
            blocks.append(block.gather(1, tokens[:, None])[:, 0])
            continue
        picked = block.gather(1, tokens[:, None])[:, 0]
        blocks.append(picked - torch.logsumexp(block, dim=1))
    return torch.cat(blocks)
