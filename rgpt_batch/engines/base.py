"""What an engine is. All engines get the same token ids, so they differ by rounding alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from rgpt_batch.records import (
    Answer,
    LabelLogits,
    LabelPrompt,
    Prompt,
    QueryLogprobs,
    TokenizedPair,
)

# A kind of prompt, and what answers it: TokenizedPair and QueryLogprobs, or LabelPrompt and
# LabelLogits.
PromptT = TypeVar("PromptT", bound=Prompt, contravariant=True)
AnswerT = TypeVar("AnswerT", bound=Answer, covariant=True)


class Engine(Protocol[PromptT, AnswerT]):
    """A loaded model that tells the log-likelihood of query tokens, or the logits of labels.

    Attributes:
        method: Its name in `engine.method`; never auto.
        passed_over: Where auto chose it: why it chose no faster one, a sentence each.
        num_cached_tokens: Prompt tokens so far that were not computed, since a cache had them.
    """

    method: str
    passed_over: tuple[str, ...] = ()
    num_cached_tokens: int = 0

    def score(self, pairs: Sequence[PromptT]) -> Sequence[AnswerT]:
        """Compute log p(token | all tokens before it) for every query token, or label logits.

        Args:
            pairs: As prompts of the kind that `score.kind` makes.

        Returns:
            One entry per pair, in order.

        Raises:
            EngineDead: The engine cannot be used any more.
        """
        ...

    def close(self) -> None:
        """Free the model; once more does nothing."""
        ...


LikelihoodEngine = Engine[TokenizedPair, QueryLogprobs]
LabelEngine = Engine[LabelPrompt, LabelLogits]
# Whichever the configuration asks for.
AnyEngine = Engine[Any, Any]
