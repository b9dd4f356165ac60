"""An engine without a model: logprobs and logits are arithmetic on the token ids.

It is for dry runs and for tests of faults. The same pair gets the same values on every machine, and
every token before a query token changes that token's value; every token changes a logit.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from rgpt_batch.engines.base import AnyEngine
from rgpt_batch.records import (
    LabelLogits,
    LabelPrompt,
    QueryLogprobs,
    TokenizedPair,
)


class FakeEngine(AnyEngine):
    """Computes a checksum, and sleeps as long as a model would take."""

    method = "fake"

    def __init__(self, seconds_per_pair: float = 0.0, num_labels: int = 0) -> None:
        self._seconds_per_pair = seconds_per_pair
        self._num_labels = num_labels

    @override
    def score(self, pairs: Sequence[Any]) -> list[Any]:
        time.sleep(self._seconds_per_pair * len(pairs))
        return [
            _checksum_logits(pair, self._num_labels)
            if isinstance(pair, LabelPrompt)
            else _checksum_logprobs(pair)
            for pair in pairs
        ]

    @override
    def close(self) -> None:
        pass


def _checksum_logprobs(pair: TokenizedPair) -> QueryLogprobs:
    tokens = pair.token_ids.astype("<i4")
    checksum = zlib.crc32(tokens[: pair.query_start].tobytes())
    values = np.empty(pair.num_query_tokens, dtype=np.float32)
    for index, token in enumerate(tokens[pair.query_start :]):
        checksum = zlib.crc32(token.tobytes(), checksum)
        values[index] = -(checksum % 20_000 + 1) / 1000
    return QueryLogprobs(values=values)


def _checksum_logits(prompt: LabelPrompt, num_labels: int) -> LabelLogits:
    values = np.empty(num_labels, dtype=np.float32)
    for label in range(num_labels):
        checksum = zlib.crc32(prompt.token_ids.astype("<i4").tobytes(), label)
        values[label] = (checksum % 20_000 - 10_000) / 1000
    return LabelLogits(values=values)
