"""What the golden tests compare with: the published computation, with transformers alone.

Nothing of rgpt_batch is imported here. One pair at a time, float32, the whole prompt in one pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@dataclass(frozen=True)
class Prompt:
    """The token ids of context and query, one after the other."""

    context_ids: list[int]
    query_ids: list[int]


@dataclass(frozen=True)
class Answer:
    """Logprobs of the query's tokens, nats, and their mean."""

    values: np.ndarray
    mean: float


@functools.cache
def load_reference(folder: Path) -> Reference:
    """Load the model of a folder, once per session."""
    return Reference(folder)


class Reference:
    """A model and the answers that it has given."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._answers: dict[tuple[tuple[int, ...], int], Answer] = {}

    def card(self, query: str, document: str) -> Answer:
        """Score as the model card says."""
        return self.answer(card_prompt(self.tokenizer, query, document))

    def answer(self, prompt: Prompt) -> Answer:
        """Score a prompt; equal prompts are computed once."""
        key = (tuple(prompt.context_ids + prompt.query_ids), len(prompt.query_ids))
        if key not in self._answers:
            self._answers[key] = self._compute(prompt)
        return self._answers[key]

    @torch.no_grad()
    def _compute(self, prompt: Prompt) -> Answer:
        input_ids = torch.tensor([prompt.context_ids + prompt.query_ids])
        logits = self._model(input_ids).logits[0]
        # The logits at a position are the prediction of the next token.
        first = len(prompt.context_ids) - 1
        predictions = torch.log_softmax(logits[first:-1], dim=-1)
        targets = torch.tensor(prompt.query_ids).unsqueeze(1)
        values = torch.gather(predictions, 1, targets).squeeze(1)
        mean = values.double().sum() / len(prompt.query_ids)
        return Answer(values=values.numpy(), mean=mean.item())


def card_prompt(tokenizer: Any, query: str, document: str) -> Prompt:
    """Context and query are tokenised apart, without special tokens."""
    context = f"Document: {document} Query:"
    return Prompt(
        context_ids=tokenizer.encode(context, add_special_tokens=False),
        query_ids=tokenizer.encode(query, add_special_tokens=False),
    )


def eval_prompt(tokenizer: Any, query: str, document: str, *, arguana: bool) -> Prompt:
    """Context and query are tokenised together, with special tokens, after the document was cut.

    Source: the description of RankingGPT's eval.py in this project's notes on protocols.
    """

    def num_tokens(text: str) -> int:
        return len(tokenizer.encode(text))

    def cut(text: str, max_tokens: int) -> str:
        return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)[:max_tokens])

    if arguana:
        query = cut(query, 256)
        max_document_tokens = 256
    else:
        query = query.replace("[PAD]", "PAD")
        max_document_tokens = 512 - num_tokens("Document: {doc} Query:") - num_tokens(query) - 10
    source = "Document: " + cut(document, max_document_tokens) + " Query:"
    source = source.replace("[PAD]", "PAD")
    ids = tokenizer.encode(source + query)
    return Prompt(context_ids=ids[: num_tokens(source)], query_ids=ids[num_tokens(source) :])
