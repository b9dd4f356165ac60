"""Truncation takes tokens from the end of the document, and from nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rgpt_batch.records import PreparedPair, Rejection, RejectionReason, ScorePair, TokenizedPair
from rgpt_batch.scoring.likelihood import CardProtocol, EvalProtocol
from tests.property.texts import texts
from tests.property.tokenizers import KINDS, small_tokenizer

TEMPLATES = [
    "Document: {document} Query:{query}",
    "{document}{query}",
    "{document}\n\n{query}",
    "Write a question for this: {document}\nQuestion: {query}",
]
LONG = 1_000_000

kinds = pytest.mark.parametrize("kind", KINDS)
tokenizer_of = functools.cache(small_tokenizer)


def _tokenize(
    tokenizer: Any, template: str, max_length: int, query: str, document: str
) -> PreparedPair:
    protocol = CardProtocol(tokenizer, template, max_length)
    return protocol.tokenize([ScorePair(query=query, document=document)])[0]


@kinds
@given(st.sampled_from(TEMPLATES), texts, texts)
def test_whole_prompt_is_context_and_query_tokenised_apart(
    kind: str, template: str, query: str, document: str
) -> None:
    tokenizer = tokenizer_of(kind)
    context = tokenizer.encode(
        template.removesuffix("{query}").replace("{document}", document), add_special_tokens=False
    )
    query_ids = tokenizer.encode(query, add_special_tokens=False)

    pair = _tokenize(tokenizer, template, LONG, query, document)

    if not query.strip() or not query_ids:
        assert pair == Rejection(reason=RejectionReason.EMPTY_QUERY)
    elif not context:
        assert pair == Rejection(reason=RejectionReason.NO_CONTEXT)
    else:
        assert isinstance(pair, TokenizedPair)
        assert pair.token_ids.tolist() == context + query_ids
        assert pair.query_start == len(context)
        assert pair.num_query_tokens == len(query_ids)
        assert pair.num_dropped_document_tokens == 0


@kinds
@given(st.sampled_from(TEMPLATES), texts, texts, st.integers(1, 80))
def test_truncation_drops_the_documents_last_tokens_alone(
    kind: str, template: str, query: str, document: str, max_length: int
) -> None:
    tokenizer = tokenizer_of(kind)
    whole = _tokenize(tokenizer, template, LONG, query, document)
    assume(isinstance(whole, TokenizedPair))
    assert isinstance(whole, TokenizedPair)
    prefix, suffix = template.removesuffix("{query}").split("{document}")
    offsets = tokenizer(
        f"{prefix}{document}{suffix}", add_special_tokens=False, return_offsets_mapping=True
    )["offset_mapping"]
    ends = [end for _, end in offsets]
    num_before = sum(end <= len(prefix) for end in ends)
    num_after = sum(end > len(prefix) + len(document) for end in ends)
    # A token can reach from the template's prefix over an empty document into its suffix.
    num_before = min(num_before, len(ends) - num_after)

    pair = _tokenize(tokenizer, template, max_length, query, document)

    num_excess = max(0, len(whole.token_ids) - max_length)
    num_document = len(ends) - num_before - num_after
    assert whole.num_document_tokens == num_document
    if num_excess > num_document:
        assert pair == Rejection(reason=RejectionReason.QUERY_TOO_LONG)
        return
    if whole.query_start == num_excess:
        assert pair == Rejection(reason=RejectionReason.NO_CONTEXT)
        return
    assert isinstance(pair, TokenizedPair)
    ids = whole.token_ids.tolist()
    kept_end = num_before + num_document - num_excess
    assert pair.token_ids.tolist() == ids[:kept_end] + ids[num_before + num_document :]
    assert len(pair.token_ids) <= max_length
    assert pair.num_query_tokens == whole.num_query_tokens
    assert pair.num_dropped_document_tokens == num_excess
    assert pair.num_document_tokens + pair.num_dropped_document_tokens == num_document


@kinds
@given(texts, texts)
def test_template_stands_whole_around_a_document_that_is_cut_away(
    kind: str, query: str, document: str
) -> None:
    """Checked on the text: what is left of the context still begins and ends as the template."""
    tokenizer = tokenizer_of(kind)
    template = "Document: {document} Query:{query}"
    bare = _tokenize(tokenizer, template, LONG, query, "")
    assume(isinstance(bare, TokenizedPair))
    assert isinstance(bare, TokenizedPair)
    # One token more than template and query need, for a blank that the document had swallowed.
    pair = _tokenize(tokenizer, template, len(bare.token_ids) + 1, query, document)
    if isinstance(pair, Rejection):
        assert pair.reason == RejectionReason.QUERY_TOO_LONG
        return
    assert isinstance(pair, TokenizedPair)
    context = tokenizer.decode(pair.token_ids[: pair.query_start].tolist())
    assert context.lower().replace(" ", "").startswith("document:")
    assert context.lower().replace(" ", "").endswith("query:")


PROTOCOLS: dict[str, Callable[..., CardProtocol | EvalProtocol]] = {
    "card": CardProtocol,
    "eval": EvalProtocol,
    "eval-arguana": functools.partial(EvalProtocol, arguana=True),
}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("kind", ["byte-level", "llama", "wordpiece"])
@given(st.lists(st.tuples(texts, texts), max_size=6), st.integers(5, 100))
def test_pairs_are_tokenised_alike_alone_and_together(
    name: str, kind: str, pairs: list[tuple[str, str]], max_length: int
) -> None:
    protocol = PROTOCOLS[name](tokenizer_of(kind), TEMPLATES[0], max_length)
    both = [ScorePair(query=query, document=document) for query, document in pairs]
    rejected = Rejection(reason=RejectionReason.NULL_QUERY)
    together = protocol.tokenize([rejected, *both, rejected, *both])
    assert together[0] is together[len(both) + 1] is rejected
    alone = [protocol.tokenize([pair])[0] for pair in both]
    for outcomes in (together[1 : len(both) + 1], together[len(both) + 2 :]):
        assert list(map(_comparable, outcomes)) == list(map(_comparable, alone))


def _comparable(outcome: PreparedPair) -> object:
    if isinstance(outcome, Rejection):
        return outcome
    assert isinstance(outcome, TokenizedPair)
    return (
        outcome.token_ids.tolist(),
        outcome.query_start,
        outcome.num_document_tokens,
        outcome.num_dropped_document_tokens,
    )


@pytest.mark.parametrize("arguana", [False, True])
@pytest.mark.parametrize("kind", ["byte-level", "llama"])
@given(texts, texts, st.integers(40, 120))
def test_eval_prompts_end_with_the_query_and_respect_the_limit(
    kind: str, arguana: bool, query: str, document: str, max_length: int
) -> None:
    tokenizer = tokenizer_of(kind)
    protocol = EvalProtocol(tokenizer, TEMPLATES[0], max_length, arguana=arguana)
    pair = protocol.tokenize([ScorePair(query=query, document=document * 10)])[0]
    if isinstance(pair, Rejection):
        assert pair.reason in {RejectionReason.EMPTY_QUERY, RejectionReason.QUERY_TOO_LONG}
        return
    assert isinstance(pair, TokenizedPair)
    assert 0 < pair.query_start < len(pair.token_ids) <= max_length
    num_document = len(tokenizer.encode(document * 10, add_special_tokens=False))
    assert pair.num_document_tokens + pair.num_dropped_document_tokens == num_document
