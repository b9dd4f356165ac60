"""Prompts in parts, for models that judge a pair as a whole.

Each part is tokenised by itself, without the special tokens that a tokenizer adds; those stand in
the configuration. So RankLLaMA's prompt (github.com/texttron/tevatron, examples/rankllama) is

    <s> | query: when should a baby walk | <s> | document: Most babies start …
          └ at most 32 tokens                    └ at most 161, cut from the document's end
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from typing_extensions import override

from rgpt_batch.config.prompts import PromptPart, ProtocolConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.records import (
    LabelPrompt,
    PreparedPair,
    Rejection,
    RejectionReason,
    ReusedScore,
    ScorePair,
)
from rgpt_batch.scoring.base import ScoringProtocol
from rgpt_batch.scoring.spans import char_span
from rgpt_batch.scoring.tokenizer import LoadedTokenizer

_QUERY, _DOCUMENT = "{query}", "{document}"


@dataclass(slots=True, kw_only=True)
class _Tokens:
    """One part of a pair's prompt; spans are counted in its ids, as (start, end).

    Attributes:
        num_dropped: Tokens of the query and of the document that are cut.
    """

    ids: list[int]
    query: tuple[int, int]
    document: tuple[int, int]
    num_dropped_query: int = 0
    num_dropped_document: int = 0

    def drop(self, number: int) -> int:
        """Drop tokens from the document's end, at most so many; return how many are left over."""
        start, end = self.document
        dropped = min(number, end - start)
        del self.ids[end - dropped : end]
        self.document = (start, end - dropped)
        self.num_dropped_document += dropped
        return number - dropped

    def drop_query(self, number: int) -> None:
        """Drop tokens from the query's end, as far as there are so many."""
        start, end = self.query
        dropped = min(number, end - start)
        del self.ids[end - dropped : end]
        self.query = (start, end - dropped)
        self.num_dropped_query += dropped


class PromptProtocol(ScoringProtocol):
    """Builds prompts from parts.

    Args:
        tokenizer: As load_tokenizer returns it.
        config: Its `prompt` is not empty.

    Raises:
        ConfigError: The tokenizer has no such special token.
    """

    def __init__(self, tokenizer: LoadedTokenizer, config: ProtocolConfig) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._parts = config.prompt
        self._max_length = config.max_tokens
        self._special_ids = {
            part.special: _token_id(self._backend, part.special)
            for part in config.prompt
            if part.special is not None
        }

    @override
    def tokenize(self, pairs: Sequence[ScorePair | Rejection | ReusedScore]) -> list[PreparedPair]:
        # Each distinct text is tokenised once, and all at once, so that it runs on all cores.
        scorable = [pair for pair in pairs if isinstance(pair, ScorePair)]
        distinct = list(
            dict.fromkeys(
                _fill(part.text, pair)
                for part in self._parts
                if part.text is not None
                for pair in scorable
            )
        )
        encoded = self._backend.encode_batch(distinct, add_special_tokens=False)
        encodings = dict(zip(distinct, encoded, strict=True))
        return [
            self._prompt(pair, encodings) if isinstance(pair, ScorePair) else pair for pair in pairs
        ]

    def _prompt(self, pair: ScorePair, encodings: dict[str, Any]) -> LabelPrompt | Rejection:
        if not pair.query.strip():
            return Rejection(reason=RejectionReason.EMPTY_QUERY)
        parts = [self._tokens(part, pair, encodings) for part in self._parts]
        num_query = sum(end - start for start, end in (part.query for part in parts))
        num_dropped_query = sum(part.num_dropped_query for part in parts)
        if not num_query:
            too_long = num_dropped_query > 0
            return Rejection(
                reason=RejectionReason.QUERY_TOO_LONG if too_long else RejectionReason.EMPTY_QUERY
            )
        num_excess = max(0, sum(len(part.ids) for part in parts) - self._max_length)
        for part in parts:
            num_excess = part.drop(num_excess)
        if num_excess:
            return Rejection(reason=RejectionReason.QUERY_TOO_LONG)
        first = [part for spec, part in zip(self._parts, parts, strict=True) if not spec.segment]
        num_first = sum(len(part.ids) for part in first)
        return LabelPrompt(
            token_ids=np.array([token for part in parts for token in part.ids], dtype=np.int32),
            second_segment=num_first if len(first) < len(parts) else None,
            num_query_tokens=num_query,
            num_dropped_query_tokens=num_dropped_query,
            num_document_tokens=sum(
                end - start for start, end in (part.document for part in parts)
            ),
            num_dropped_document_tokens=sum(part.num_dropped_document for part in parts),
        )

    def _tokens(self, part: PromptPart, pair: ScorePair, encodings: dict[str, Any]) -> _Tokens:
        if part.special is not None:
            return _Tokens(ids=[self._special_ids[part.special]], query=(0, 0), document=(0, 0))
        assert part.text is not None
        encoding = encodings[_fill(part.text, pair)]
        tokens = _Tokens(
            ids=list(encoding.ids),
            query=_span(encoding, part.text, pair, _QUERY),
            document=_span(encoding, part.text, pair, _DOCUMENT),
        )
        num_excess = max(0, len(tokens.ids) - (part.max_tokens or len(tokens.ids)))
        if _DOCUMENT in part.text:
            tokens.drop(num_excess)
        else:
            tokens.drop_query(num_excess)
        return tokens


def _fill(text: str | None, pair: ScorePair) -> str:
    """Put the pair's texts into a part's; what stands in braces in them stays as it is."""
    assert text is not None
    return "".join(
        pair.query if piece == _QUERY else pair.document if piece == _DOCUMENT else piece
        for piece in _pieces(text)
    )


def _pieces(text: str) -> list[str]:
    """Cut a part's text before and behind its placeholders."""
    pieces = [text]
    for placeholder in (_QUERY, _DOCUMENT):
        pieces = [
            piece
            for whole in pieces
            for piece in (
                [whole]
                if whole in (_QUERY, _DOCUMENT)
                else [part for part in whole.partition(placeholder) if part]
            )
        ]
    return pieces


def _span(encoding: Any, text: str, pair: ScorePair, placeholder: str) -> tuple[int, int]:
    """Find the tokens of the query or document; (0, 0) where the part does not hold it."""
    if placeholder not in text:
        return 0, 0
    before, _, _ = text.partition(placeholder)
    first_char = len(_fill(before, pair))
    value = pair.query if placeholder == _QUERY else pair.document
    return char_span(encoding, first_char, first_char + len(value))


def _token_id(backend: Any, name: str) -> int:
    token_id = backend.token_to_id(name)
    if token_id is None:
        raise ConfigError(
            f"protocol.prompt: the tokenizer has no token '{name}'. Take its name from "
            "tokenizer.json, or write it as text."
        )
    return int(token_id)
