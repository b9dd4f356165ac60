"""What an engine is. All engines get the same token ids, so they differ by rounding alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rgpt_batch.records import QueryLogprobs, TokenizedPair


class Engine(Protocol):
    """A loaded language model that tells the log-likelihood of query tokens.

    Attributes:
        method: Its name in `engine.method`; never auto.
        passed_over: Where auto chose it: why it chose no faster one, a sentence each.
    """

    method: str
    passed_over: tuple[str, ...] = ()

    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        """Compute log p(token | all tokens before it) for every query token.

        Returns:
            One entry per pair, in order.

        Raises:
            EngineDead: The engine cannot be used any more.
        """
        ...

    def close(self) -> None:
        """Free the model; once more does nothing."""
        ...
