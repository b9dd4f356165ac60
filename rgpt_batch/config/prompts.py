"""How a pair becomes a prompt, and what is read off the model: the options of both.

A model that was trained to judge a pair gets a prompt in parts, which are tokenised apart:

    protocol:
      name: prompt
      prompt:
        - {special: "[CLS]"}
        - {text: "{query}", max_tokens: 64}
        - {special: "[SEP]"}
        - {text: "{document}", segment: 1}
        - {special: "[SEP]", segment: 1}
    score:
      kind: classification
      relevant: 1
      not_relevant: 0
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rgpt_batch.config.section import Section

PositiveInt = Annotated[int, Field(gt=0)]

ProtocolName = Literal["card", "eval", "eval-arguana", "prompt"]

# Tokens per prompt where `protocol.max_length` is not set. 512 is eval.py's limit; arguana's
# variant allows 256 tokens each for document and query, and the template comes on top. Most models
# that judge pairs have 512 positions.
DEFAULT_MAX_LENGTH: dict[ProtocolName, int] = {
    "card": 2048,
    "eval": 512,
    "eval-arguana": 544,
    "prompt": 512,
}

ScoreKind = Literal["query-likelihood", "classification", "label-tokens", "seq2seq"]


class PromptPart(Section):
    """A part of a prompt; exactly one of special and text."""

    special: str | None = Field(None, description="A token by its name in the vocabulary.")
    text: str | None = Field(None, description="May hold {query} and {document}, once each.")
    max_tokens: PositiveInt | None = Field(
        None,
        description="Tokens of this text. What is more is cut from the end of its document; where "
        "it holds none, from the end of its query.",
    )
    segment: Literal[0, 1] = Field(0, description="Token type, for models that know two (BERT).")

    @model_validator(mode="after")
    def _one_of_two(self) -> PromptPart:
        if (self.special is None) == (self.text is None):
            raise ValueError("must hold either special or text")
        if self.special is not None and self.max_tokens is not None:
            raise ValueError("max_tokens is for texts; a special token is one token")
        return self


class ProtocolConfig(Section):
    """How a pair becomes a prompt."""

    name: ProtocolName = Field(
        "card", description="card: the model card's; eval: eval.py's; prompt: protocol.prompt."
    )
    template: str = Field(
        "Document: {document} Query:{query}",
        description="{document} once, then {query} once at the very end. Not for name prompt.",
    )
    prompt: tuple[PromptPart, ...] = Field(
        (), description="For name prompt: its parts, which are tokenised apart and then joined."
    )
    max_length: PositiveInt | None = Field(
        None,
        description="Tokens per prompt; longer documents are cut. "
        "Default: card 2048, eval and prompt 512, eval-arguana 544.",
    )

    @field_validator("template")
    @classmethod
    def _query_last(cls, template: str) -> str:
        if (
            template.count("{document}") != 1
            or template.count("{query}") != 1
            or not template.endswith("{query}")
        ):
            raise ValueError(
                "must hold {document} once and end with {query}, "
                "for example 'Document: {document} Query:{query}'"
            )
        return template

    @model_validator(mode="after")
    def _complete(self) -> ProtocolConfig:
        if (self.name == "prompt") != bool(self.prompt):
            raise ValueError("protocol.name prompt and protocol.prompt need each other")
        if self.prompt:
            texts = [part.text for part in self.prompt if part.text is not None]
            for placeholder in ("{query}", "{document}"):
                if sum(text.count(placeholder) for text in texts) != 1:
                    raise ValueError(f"the texts of protocol.prompt must hold {placeholder} once")
            segments = [part.segment for part in self.prompt]
            if segments != sorted(segments):
                raise ValueError("protocol.prompt: segment 0 must not come behind segment 1")
        return self

    @property
    def max_tokens(self) -> int:
        """The limit on tokens per prompt that is in force."""
        return self.max_length or DEFAULT_MAX_LENGTH[self.name]


class ScoreConfig(Section):
    """What the score of a pair is."""

    kind: ScoreKind = Field(
        "query-likelihood",
        description="query-likelihood: mean logprob of the query's tokens. The others read logits: "
        "classification: of the model's head; label-tokens: of the token behind the prompt; "
        "seq2seq: of a decoder's first token.",
    )
    relevant: int | str | None = Field(
        None,
        description="Not for query-likelihood: the label whose logit says relevant. A row of the "
        "head, or a token of the vocabulary.",
    )
    not_relevant: int | str | None = Field(
        None,
        description="The label that says the contrary. The score is then log p(relevant) of the "
        "two, without it the logit of `relevant`.",
    )

    @property
    def is_likelihood(self) -> bool:
        """Whether the score is made of logprobs of the query's tokens."""
        return self.kind == "query-likelihood"

    @property
    def labels(self) -> tuple[int | str, ...]:
        """The labels whose logits are read: not relevant, if there is one, then relevant."""
        both = (self.not_relevant, self.relevant)
        return tuple(label for label in both if label is not None)

    @model_validator(mode="after")
    def _labels_fit(self) -> ScoreConfig:
        if self.is_likelihood:
            if self.labels:
                raise ValueError("score.kind query-likelihood has no labels")
            return self
        if self.relevant is None:
            raise ValueError(f"score.kind {self.kind} needs score.relevant")
        if self.relevant == self.not_relevant:
            raise ValueError("score.relevant and score.not_relevant are the same label")
        label_type = int if self.kind == "classification" else str
        if wrong := [label for label in self.labels if not isinstance(label, label_type)]:
            expected = "a row of the head, from 0" if label_type is int else "a token"
            raise ValueError(f"score.kind {self.kind}: label {wrong[0]!r} must be {expected}")
        if any(isinstance(label, int) and label < 0 for label in self.labels):
            raise ValueError("score.relevant and score.not_relevant count from 0")
        return self
