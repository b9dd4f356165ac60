"""What protocol.prompt and score may hold, and what each mistake is told."""

from __future__ import annotations

from typing import Any

import pytest

from rgpt_batch.config.load import load_config
from rgpt_batch.config.options import ENGINES, JobConfig
from rgpt_batch.config.prompts import ScoreKind
from rgpt_batch.config.validation import validated
from rgpt_batch.errors import ConfigError

PARTS: list[dict[str, Any]] = [
    {"special": "[CLS]"},
    {"text": "{query}", "max_tokens": 64},
    {"text": "{document}", "segment": 1},
]
CLASSIFICATION = {"kind": "classification", "relevant": 1, "not_relevant": 0}
TOKENS = {"kind": "label-tokens", "relevant": "yes", "not_relevant": "no"}


def _config(
    parts: Any = PARTS, score: Any = CLASSIFICATION, method: str = "auto", **sections: Any
) -> JobConfig:
    settings = {
        "model": {"name": "m"},
        "protocol": {"name": "prompt", "prompt": parts},
        "score": score,
        "engine": {"method": method},
        **sections,
    }
    return validated(JobConfig, settings, "configuration")


def _error(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        _config(**settings)
    return str(caught.value)


def test_a_complete_configuration_has_512_tokens_and_its_labels_in_order() -> None:
    config = _config()
    assert config.protocol.max_tokens == 512
    assert config.score.labels == (0, 1)
    assert _config(score={"kind": "classification", "relevant": 0}).score.labels == (0,)
    assert _config(score=TOKENS).score.labels == ("no", "yes")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({}, "must hold either special or text"),
        ({"special": "[SEP]", "text": "a"}, "must hold either special or text"),
        ({"special": "[SEP]", "max_tokens": 1}, "max_tokens is for texts"),
        ({"text": "a", "max_tokens": 0}, "greater than 0"),
        ({"text": "a", "segment": 2}, "0 or 1"),
        ({"text": "{query}"}, r"must hold {query} once"),
        ({"text": "a", "segment": 0}, "segment 0 must not come behind segment 1"),
        (
            {"words": "a"},
            "protocol.prompt.3.words: unknown option. Known: special, text, max_tokens, segment.",
        ),
    ],
)
def test_a_wrong_part_is_named_with_what_it_must_be(part: dict[str, Any], message: str) -> None:
    assert message in _error(parts=[*PARTS, part])


@pytest.mark.parametrize("placeholder", ["query", "document"])
def test_a_prompt_holds_query_and_document(placeholder: str) -> None:
    rest = [part for part in PARTS if part.get("text") != f"{{{placeholder}}}"]
    assert f"must hold {{{placeholder}}} once" in _error(parts=rest)


def test_a_prompt_and_its_protocol_need_each_other() -> None:
    message = "protocol.name prompt and protocol.prompt need each other"
    assert message in _error(parts=[])
    assert message in _error(protocol={"name": "card", "prompt": PARTS})


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ({"kind": "classification"}, "needs score.relevant"),
        ({"kind": "label-tokens", "not_relevant": "no"}, "needs score.relevant"),
        ({**CLASSIFICATION, "not_relevant": 1}, "are the same label"),
        ({**CLASSIFICATION, "not_relevant": -1}, "count from 0"),
        ({**CLASSIFICATION, "relevant": "yes"}, "label 'yes' must be a row of the head"),
        ({**TOKENS, "relevant": 1}, "label 1 must be a token"),
        ({"kind": "query-likelihood", "relevant": 1}, "query-likelihood has no labels"),
        ({"kind": "likelihood"}, "query-likelihood"),
    ],
)
def test_wrong_labels_are_named_with_what_they_must_be(score: Any, message: str) -> None:
    assert message in _error(score=score)


def test_a_kind_of_score_has_its_protocol() -> None:
    assert "query-likelihood needs protocol.name card" in _error(score={})
    message = "score.kind classification needs protocol.name prompt"
    assert message in _error(protocol={"name": "card"})


@pytest.mark.parametrize("kind", ENGINES)
def test_a_kind_of_score_has_its_engines(kind: ScoreKind) -> None:
    score: Any = {"kind": kind}
    if kind != "query-likelihood":
        score |= CLASSIFICATION if kind == "classification" else TOKENS
        score["kind"] = kind
    settings: dict[str, Any] = {"score": score}
    if kind == "query-likelihood":
        settings["protocol"] = {"name": "card"}
    own = {"auto", "transformers", "fake", *ENGINES[kind]}
    for method in own | {method for methods in ENGINES.values() for method in methods}:
        if method in own:
            assert _config(**settings, method=method).engine.method == method
        else:
            message = f"engine.method {method} does not compute score.kind {kind}"
            assert message in _error(**settings, method=method)


def test_logits_have_no_logprobs_of_query_tokens() -> None:
    message = "has no logprobs: leave out query_token_logprobs"
    assert message in _error(output={"query_token_logprobs": True})


def test_a_label_that_looks_like_a_number_is_text_where_it_is_quoted() -> None:
    config = load_config(
        None,
        (
            "model.name=m",
            "protocol={name: prompt, prompt: [{text: '{query} {document}'}]}",
            "score={kind: label-tokens, relevant: '1', not_relevant: '0'}",
        ),
    )
    assert config.score.labels == ("0", "1")
