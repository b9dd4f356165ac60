"""Pairs in memory, without files: the same prompts, engine and score as a job's."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine
from rgpt_batch.input.columns import resolve_columns
from rgpt_batch.input.pairs import to_pair_batch
from rgpt_batch.output.score_file import check_pass_through, to_table
from rgpt_batch.records import (
    PreparedPair,
    Prompt,
    Rejection,
    RowResult,
    ScorePair,
    TokenizedPair,
)
from rgpt_batch.scoring.model_files import pinned
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.results import to_results
from rgpt_batch.scoring.tokenizer import LoadedTokenizer, load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPair:
    """What is said of one pair.

    Attributes:
        score: What a job's column `score` would hold; None where the pair is rejected.
        rejection: Why it is rejected, such as EMPTY_QUERY; None where it has a score.
        query_tokens: Each token of the query with its logprob, nats; empty where the pair is
            rejected, and for models that judge pairs.
    """

    score: float | None
    rejection: str | None
    query_tokens: tuple[tuple[str, float], ...]


class Scorer:
    """A loaded engine for pairs in memory; closed at the end of a `with`.

        with Scorer(load_config("configs/bloom-560m.yaml")) as scorer:
            scorer.score([("when should a baby walk", "Most babies start to walk around …")])

    Its instances are called with a table, so it is an actor class of Ray Data, too:

        dataset.map_batches(Scorer, fn_constructor_args=(config,), batch_format="pyarrow",
                            num_gpus=1, concurrency=8)

    Only a job has units, retries and exactly-once output. Threads may share a scorer.

    Args:
        config: As a job's; the sections executor, units and parity do not matter.

    Raises:
        ConfigError: The model or the tokenizer cannot be used.
        EngineStartError: The engine does not start.
    """

    def __init__(self, config: JobConfig) -> None:
        check_pass_through(config.output.pass_through, labels=not config.score.is_likelihood)
        self._config = config.with_options({"model": pinned(config.model)})
        self._protocol = load_protocol(self._config.protocol, self._config.model)
        self._engine = create_engine(self._config)
        self._lock = threading.Lock()

    def score(self, pairs: Iterable[tuple[str, str]]) -> list[ScoredPair]:
        """Score pairs of a query and a document.

        Returns:
            One entry per pair, in order.

        Raises:
            EngineError: They cannot be scored.
        """
        texts = [ScorePair(query=query, document=document) for query, document in pairs]
        prepared = self._protocol.tokenize(texts)
        results = self._results(prepared)
        return [
            self._scored_pair(prompt, result)
            for prompt, result in zip(prepared, results, strict=True)
        ]

    def score_table(self, table: pa.Table) -> pa.Table:
        """Score the rows of a table with the columns of a job's input.

        Returns:
            The columns of a job's output, without pair_hash; one row for each, in order.

        Raises:
            ShardError: A column is missing, or of a type that cannot be used.
            EngineError: The rows cannot be scored.
        """
        columns = resolve_columns(
            table.schema, self._config.input.columns, self._config.output.pass_through, "table"
        )
        empty = pa.RecordBatch.from_pylist([], schema=table.schema)
        batches = [
            to_pair_batch(batch.select(columns.read), columns, None, 0)
            for batch in table.combine_chunks().to_batches() or [empty]
        ]
        pairs = [pair for batch in batches for pair in batch.pairs]
        return to_table(
            [batch.columns for batch in batches],
            self._results(self._protocol.tokenize(pairs)),
            logprobs=self._config.output.query_token_logprobs,
            labels=not self._config.score.is_likelihood,
        )

    __call__ = score_table

    def close(self) -> None:
        """Free the engine; once more does nothing."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _results(self, prepared: Sequence[PreparedPair]) -> list[RowResult]:
        prompts = [prompt for prompt in prepared if isinstance(prompt, Prompt)]
        with self._lock:
            answers = self._engine.score(prompts)
        return to_results(prepared, answers, [None] * len(prepared))

    @functools.cached_property
    def _tokenizer(self) -> LoadedTokenizer:
        """Only pairs need it again, tables do not."""
        return load_tokenizer(self._config.model)

    def _scored_pair(self, prompt: PreparedPair, result: RowResult) -> ScoredPair:
        if isinstance(result.outcome, Rejection):
            return ScoredPair(score=None, rejection=str(result.outcome.reason), query_tokens=())
        tokens: tuple[tuple[str, float], ...] = ()
        if isinstance(prompt, TokenizedPair) and result.logprobs is not None:
            ids = prompt.token_ids[prompt.query_start :].tolist()
            texts = (self._tokenizer.decode([token_id]) for token_id in ids)
            tokens = tuple(zip(texts, map(float, result.logprobs.values), strict=True))
        return ScoredPair(score=result.outcome.value, rejection=None, query_tokens=tokens)
