"""Prompts whose query the model has to predict.

Two protocols are published, and they give different scores (RankingGPT, arXiv 2311.16720):

* `card`, the model card's snippet: context and query are tokenised apart, without special tokens.

      tokenise("Document: … Query:") + tokenise("when should a baby walk")
                                       ^ query_start

* `eval`, the repository's eval.py (github.com/Alibaba-NLP/RankingGPT): both are tokenised together,
  with the tokenizer's own special tokens, after the document went through encode, cut and decode.
  The query is what follows the first len(tokenise("Document: … Query:")) tokens.

Truncation takes tokens from the end of the document, never from the template or the query.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from rgpt_batch.records import (
    PreparedPair,
    Rejection,
    RejectionReason,
    ReusedScore,
    ScorePair,
    TokenizedPair,
)
from rgpt_batch.scoring.base import ScoringProtocol
from rgpt_batch.scoring.spans import char_span
from rgpt_batch.scoring.tokenizer import LoadedTokenizer

# eval.py leaves this many tokens free.
_EVAL_MARGIN = 10
_ARGUANA_MAX_TOKENS = 256


class CardProtocol(ScoringProtocol):
    """The model card's protocol: context and query are tokenised apart, without special tokens."""

    def __init__(self, tokenizer: LoadedTokenizer, template: str, max_length: int) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._prefix, self._suffix = _split_template(template)
        self._max_length = max_length

    @override
    def tokenize(self, pairs: Sequence[ScorePair | Rejection | ReusedScore]) -> list[PreparedPair]:
        # Each distinct text is tokenised once.
        scorable = [pair for pair in pairs if isinstance(pair, ScorePair)]
        queries = self._encode_distinct(pair.query for pair in scorable)
        contexts = self._encode_distinct(self._context(pair.document) for pair in scorable)
        return [
            self._join(pair, contexts[self._context(pair.document)], queries[pair.query])
            if isinstance(pair, ScorePair)
            else pair
            for pair in pairs
        ]

    def _context(self, document: str) -> str:
        return f"{self._prefix}{document}{self._suffix}"

    def _encode_distinct(self, texts: Iterable[str]) -> dict[str, Any]:
        distinct = list(dict.fromkeys(texts))
        encodings = self._backend.encode_batch(distinct, add_special_tokens=False)
        return dict(zip(distinct, encodings, strict=True))

    def _join(self, pair: ScorePair, context: Any, query: Any) -> TokenizedPair | Rejection:
        if not pair.query.strip() or not query.ids:
            return Rejection(reason=RejectionReason.EMPTY_QUERY)
        first_char = len(self._prefix)
        start, end = char_span(context, first_char, first_char + len(pair.document))
        num_excess = max(0, len(context) + len(query) - self._max_length)
        if num_excess > end - start:
            return Rejection(reason=RejectionReason.QUERY_TOO_LONG)
        context_ids = context.ids
        del context_ids[end - num_excess : end]
        if not context_ids:
            return Rejection(reason=RejectionReason.NO_CONTEXT)
        return TokenizedPair(
            token_ids=np.array(context_ids + query.ids, dtype=np.int32),
            query_start=len(context_ids),
            num_document_tokens=end - start - num_excess,
            num_dropped_document_tokens=num_excess,
        )


class EvalProtocol(ScoringProtocol):
    """eval.py's protocol: source and query are tokenised together.

    Args:
        arguana: Cut document and query to 256 tokens each, as eval.py does for that data set.
    """

    def __init__(
        self, tokenizer: LoadedTokenizer, template: str, max_length: int, *, arguana: bool = False
    ) -> None:
        self._decode = tokenizer.decode
        self._backend = tokenizer.backend_tokenizer
        self._prefix, self._suffix = _split_template(template)
        self._max_length = max_length
        self._arguana = arguana
        # eval.py counts the template with its placeholder and with special tokens.
        (prompt,) = self._encode([f"{self._prefix}{{doc}}{self._suffix}"])
        self._num_prompt_tokens = len(prompt)

    @override
    def tokenize(self, pairs: Sequence[ScorePair | Rejection | ReusedScore]) -> list[PreparedPair]:
        # Each step takes all pairs at once, so that it runs on all cores.
        places = [row for row, pair in enumerate(pairs) if isinstance(pair, ScorePair)]
        scorable = [pair for pair in pairs if isinstance(pair, ScorePair)]
        queries, limits = self._queries([pair.query for pair in scorable])
        documents = self._encode([pair.document for pair in scorable], special_tokens=False)
        sources = [
            f"{self._prefix}{self._decode(ids[: max(0, limit)])}{self._suffix}".replace(
                "[PAD]", "PAD"
            )
            for ids, limit in zip(documents, limits, strict=True)
        ]
        source_ids = self._encode(sources)
        prompt_ids = self._encode([s + q for s, q in zip(sources, queries, strict=True)])
        joined = map(self._join, scorable, limits, documents, source_ids, prompt_ids)
        answers = dict(zip(places, joined, strict=True))
        return [
            answers[row] if isinstance(pair, ScorePair) else pair for row, pair in enumerate(pairs)
        ]

    def _queries(self, queries: Sequence[str]) -> tuple[list[str], list[int]]:
        """Return queries as they stand in prompts, and the document tokens that fit beside them."""
        if self._arguana:
            query_ids = self._encode(queries, special_tokens=False)
            cut = [self._decode(ids[:_ARGUANA_MAX_TOKENS]) for ids in query_ids]
            return cut, [_ARGUANA_MAX_TOKENS] * len(queries)
        replaced = [query.replace("[PAD]", "PAD") for query in queries]
        free = self._max_length - self._num_prompt_tokens - _EVAL_MARGIN
        return replaced, [free - len(ids) for ids in self._encode(replaced)]

    def _join(
        self,
        pair: ScorePair,
        max_document_tokens: int,
        document_ids: list[int],
        source_ids: list[int],
        token_ids: list[int],
    ) -> TokenizedPair | Rejection:
        query_start = len(source_ids)
        if not pair.query.strip():
            return Rejection(reason=RejectionReason.EMPTY_QUERY)
        if max_document_tokens < 1:
            return Rejection(reason=RejectionReason.QUERY_TOO_LONG)
        # Tokens can merge across the boundary; eval.py would then divide by zero.
        if query_start >= len(token_ids):
            return Rejection(reason=RejectionReason.EMPTY_QUERY)
        if len(token_ids) > self._max_length:
            return Rejection(reason=RejectionReason.QUERY_TOO_LONG)
        if query_start == 0:
            return Rejection(reason=RejectionReason.NO_CONTEXT)
        num_kept = min(len(document_ids), max_document_tokens)
        return TokenizedPair(
            token_ids=np.array(token_ids, dtype=np.int32),
            query_start=query_start,
            num_document_tokens=num_kept,
            num_dropped_document_tokens=len(document_ids) - num_kept,
        )

    def _encode(self, texts: Sequence[str], *, special_tokens: bool = True) -> list[list[int]]:
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=special_tokens)
        return [encoding.ids for encoding in encodings]


def _split_template(template: str) -> tuple[str, str]:
    prefix, _, rest = template.partition("{document}")
    return prefix, rest.removesuffix("{query}")
