"""What a scoring protocol is: how a query and a document become tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rgpt_batch.records import PreparedPair, Rejection, ReusedScore, ScorePair


class ScoringProtocol(Protocol):
    """Turns pairs into prompts."""

    def tokenize(self, pairs: Sequence[ScorePair | Rejection | ReusedScore]) -> list[PreparedPair]:
        """Return one entry per pair, in order; what is no ScorePair stays as it is.

        A pair that has no prompt becomes a Rejection.
        """
        ...
