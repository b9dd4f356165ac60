"""From hidden states to the logits of a few tokens behind the prompt; runs in vLLM's workers.

tokens   [ Is the document relevant ? ... Answer : ]
row                                              ^  predicts "yes" or "no"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rgpt_batch.engines.vllm.query_rows.pooler import LogitsPooler


class LabelPooler(LogitsPooler):
    """Computes logits at the last row of each prompt, and keeps those of the labels.

    Args:
        compute_logits: See LogitsPooler.
        vocab_size: See LogitsPooler.
        label_ids: Tokens of the vocabulary.
    """

    def __init__(
        self,
        compute_logits: Callable[[torch.Tensor], Any],
        vocab_size: int,
        label_ids: Sequence[int],
    ) -> None:
        super().__init__(compute_logits, vocab_size)
        self._label_ids = list(label_ids)

    def forward(self, hidden_states: torch.Tensor, pooling_metadata: Any) -> list[Any]:
        """Compute the logits of the prompts that end in this step.

        Args:
            hidden_states: Shape (num_scheduled_tokens, hidden_size), request after request.
            pooling_metadata: vLLM's PoolingMetadata of the step.

        Returns:
            For every request None, or, in the step that ends its prompt, its logits: float32,
            shape (num_labels,), on the host.
        """
        cursor = pooling_metadata.get_pooling_cursor()
        rows = hidden_states[cursor.last_token_indices_gpu]
        values = torch.cat([self._logits(block) for block in rows.split(self._max_rows)])
        # One copy for all requests. vLLM waits for the device before it reads a pooler's output.
        values = values.to("cpu", non_blocking=True)
        is_done = torch.eq(cursor.seq_lens_cpu, pooling_metadata.prompt_lens).tolist()
        return [row if done else None for row, done in zip(values, is_done, strict=True)]

    def _logits(self, rows: torch.Tensor) -> torch.Tensor:
        logits = self._compute_logits(rows)
        if logits is None:
            # vLLM gives some ranks no logits, and drops their answers.
            return torch.empty(len(rows), len(self._label_ids), device=rows.device)
        picked: torch.Tensor = logits[:, self._label_ids].float()
        return picked
