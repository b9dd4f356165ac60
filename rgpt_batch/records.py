"""The nouns of the program, in the order in which a row meets them.

    ScorePair → TokenizedPair → QueryLogprobs → Score
    ScorePair → LabelPrompt   → LabelLogits   → Score
                     └ or Rejection ┘

A shard is one input file, a unit is the range of rows that is retried and committed as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class RejectionReason(StrEnum):
    """Why a row has no score. The value is what the output column `rejection` holds."""

    NULL_QUERY = "NULL_QUERY"
    NULL_DOCUMENT = "NULL_DOCUMENT"
    EMPTY_QUERY = "EMPTY_QUERY"
    QUERY_TOO_LONG = "QUERY_TOO_LONG"
    NO_CONTEXT = "NO_CONTEXT"
    INVALID_TEXT = "INVALID_TEXT"
    TEXT_TOO_LARGE = "TEXT_TOO_LARGE"
    UNREADABLE = "UNREADABLE"
    ENGINE_CRASH = "ENGINE_CRASH"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePair:
    """One query and one document, both as text."""

    query: str
    document: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A row that cannot be scored, and why."""

    reason: RejectionReason


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenizedPair:
    """A prompt whose last tokens are the query's.

        token_ids   [ Document : ... Query : | when should a baby walk ]
                                              ^ query_start

    Attributes:
        token_ids: Shape (num_tokens,), int32.
        query_start: Index of the query's first token; at least 1, below num_tokens.
        num_document_tokens: Tokens of the document that stand in the prompt.
        num_dropped_document_tokens: Tokens of the document that truncation left out.
    """

    token_ids: npt.NDArray[np.int32]
    query_start: int
    num_document_tokens: int
    num_dropped_document_tokens: int

    @property
    def num_query_tokens(self) -> int:
        """How many tokens are scored."""
        return len(self.token_ids) - self.query_start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelPrompt:
    """A prompt that the model judges as a whole.

        token_ids   [ [CLS] when should a baby walk [SEP] Most babies start … [SEP] ]
                                                          ^ second_segment

    Attributes:
        token_ids: Shape (num_tokens,), int32; at least one token.
        second_segment: Index of the first token of type 1; None where all are of type 0.
        num_query_tokens: Tokens of the query that stand in the prompt.
        num_dropped_query_tokens: Tokens of the query that its own limit left out.
        num_document_tokens: Tokens of the document that stand in the prompt.
        num_dropped_document_tokens: Tokens of the document that truncation left out.
    """

    token_ids: npt.NDArray[np.int32]
    second_segment: int | None
    num_query_tokens: int
    num_dropped_query_tokens: int
    num_document_tokens: int
    num_dropped_document_tokens: int


# What an engine is given.
Prompt = TokenizedPair | LabelPrompt


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QueryLogprobs:
    """What an engine says of one pair.

    Attributes:
        values: Shape (num_query_tokens,), float32, nats: log p(query token | all tokens before it).
    """

    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelLogits:
    """What an engine says of one pair that it judges.

    Attributes:
        values: Float32, the logits of (relevant,) or of (not relevant, relevant).
    """

    values: npt.NDArray[np.float32]


# What an engine answers.
Answer = QueryLogprobs | LabelLogits


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The score of one pair.

    Attributes:
        value: Query likelihood: the mean logprob of the query's tokens, nats. Two labels: log
            p(relevant), nats. One label: its logit. Higher is more relevant.
        sum_logprob: Of the query's tokens, nats; None for labels.
        logit: How far relevant is above not relevant, or the one logit; None for query likelihood.
    """

    value: float
    sum_logprob: float | None
    logit: float | None = None
    num_query_tokens: int
    num_dropped_query_tokens: int = 0
    num_document_tokens: int
    num_dropped_document_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReusedScore:
    """What an earlier job with the same scoring settings found for the same texts.

    Attributes:
        logprobs: None where they are not wanted.
    """

    score: Score
    logprobs: QueryLogprobs | None


# What reading and tokenising make of a row.
PreparedPair = Prompt | Rejection | ReusedScore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowResult:
    """What the output says of one row.

    Attributes:
        logprobs: None where the row has no score, or its tokens' logprobs are not wanted.
        pair_hash: None where there are no texts to hash.
    """

    outcome: Score | Rejection
    logprobs: QueryLogprobs | None = None
    pair_hash: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of consecutive rows of one shard.

    Attributes:
        path: The shard.
        version: The shard's version when the plan was made.
        first_row: Index of the first row, counted over the whole shard.
        num_rows: How many rows follow.
    """

    path: str
    version: str
    first_row: int
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """The rows that one attempt reads, scores and commits.

    Attributes:
        unit_id: Six digits or more, in input order; part of the output file's name.
        segments: The rows, in input order.
        num_bytes: Uncompressed size of the columns that are read, from the footers.
    """

    unit_id: str
    segments: tuple[Segment, ...]
    num_bytes: int

    @property
    def num_rows(self) -> int:
        """How many rows the unit covers."""
        return sum(segment.num_rows for segment in self.segments)

    def part(self, rows: range) -> WorkUnit:
        """Return a unit of some of the rows, counted from 0; its segments are where they lie."""
        segments = []
        first = 0
        for segment in self.segments:
            low, high = max(rows.start, first), min(rows.stop, first + segment.num_rows)
            if low < high:
                first_row = segment.first_row + low - first
                segments.append(replace(segment, first_row=first_row, num_rows=high - low))
            first += segment.num_rows
        return replace(
            self,
            segments=tuple(segments),
            num_bytes=self.num_bytes * len(rows) // max(1, self.num_rows),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What happened to one unit that is now committed.

    Attributes:
        committed: False where another run had published the unit first.
        engine: The method that scored.
        passed_over: Why faster methods did not, a sentence each.
        num_rejected: Rejected rows per reason.
        num_reused: Rows whose score was copied from an earlier job.
        num_prompt_tokens: Tokens that the engine was given.
        num_cached_tokens: Those of them that it did not compute, since a cache had them; 0 also
            where the engine does not tell.
        read_seconds: Reading and tokenising.
        engine_seconds: Scoring, without the wait for the engine.
        commit_seconds: Building and publishing the file.
        started_at: When reading began, seconds since the epoch.
        finished_at: When the commit was done, seconds since the epoch.
        num_attempts: How often the unit was tried, this time included.
        hardware: What the engine computed on; empty in records of older versions.
    """

    unit_id: str
    worker: str
    num_rows: int
    committed: bool
    engine: str
    passed_over: tuple[str, ...]
    num_rejected: dict[str, int] = field(default_factory=dict)
    num_reused: int = 0
    num_prompt_tokens: int
    num_cached_tokens: int = 0
    num_dropped_document_tokens: int
    num_truncated_rows: int
    read_seconds: float
    engine_seconds: float
    commit_seconds: float
    started_at: float
    finished_at: float
    num_attempts: int = 1
    hardware: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailure:
    """A unit that could not be committed after all its attempts.

    Attributes:
        failed_at: When the last attempt failed, seconds since the epoch.
    """

    unit_id: str
    num_rows: int
    num_attempts: int
    cause: str
    failed_at: float | None = None
