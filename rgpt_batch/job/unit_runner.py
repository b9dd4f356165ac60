"""One unit, from reading to commit. No Ray in here.

Several units may be in flight in one runner, each on a thread of its own: while the engine scores
one, the next is read and tokenised and the last one is committed.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine
from rgpt_batch.errors import EngineOutputError
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.output import open_store
from rgpt_batch.output.score_file import Footer, to_table, with_footer
from rgpt_batch.planning.manifest import installed_versions
from rgpt_batch.records import (
    QueryLogprobs,
    Rejection,
    RejectionReason,
    ReusedScore,
    Score,
    TokenizedPair,
    UnitReport,
    WorkUnit,
)
from rgpt_batch.reuse.index import ScoreIndex
from rgpt_batch.scoring.pair_hash import pair_hashes
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.score import to_score

# What reading makes of a row.
_Prepared = TokenizedPair | Rejection | ReusedScore


class UnitRunner:
    """A loaded engine and all that it needs to turn units into committed files.

    Args:
        worker: The runner's name in reports.
        score_index: The file that holds the scores of an earlier job, where these are reused.

    Raises:
        ConfigError: The tokenizer cannot be used.
        EngineStartError: The engine does not start.
    """

    def __init__(
        self,
        config: JobConfig,
        columns: Columns,
        fingerprint: str,
        output: str,
        worker: str,
        *,
        score_index: str | None = None,
    ) -> None:
        self._config = config
        self._columns = columns
        self._fingerprint = fingerprint
        self._worker = worker
        self._store = open_store(output)
        self._versions = installed_versions()
        self._protocol = load_protocol(config.protocol, config.model)
        self._score_index = ScoreIndex(score_index) if score_index else None
        self._engine = create_engine(config)
        self._engine_lock = threading.Lock()

    def run(self, unit: WorkUnit, crashing_rows: frozenset[int] = frozenset()) -> UnitReport:
        """Read, tokenise, score and commit one unit.

        Args:
            unit: What to score.
            crashing_rows: Rows of the unit, counted from 0, that the engine must not see.

        Raises:
            ShardError: The rows cannot be read.
            EngineError: They cannot be scored.
            CommitError: The scores cannot be published.
        """
        started = time.perf_counter()
        columns, pairs, hashes = self._read(unit, crashing_rows)
        prompts = [pair for pair in pairs if isinstance(pair, TokenizedPair)]
        read = time.perf_counter()

        with self._engine_lock:
            engine_started = time.perf_counter()
            logprobs = self._engine.score(prompts)
            engine_finished = time.perf_counter()
        if len(logprobs) != len(prompts):
            raise EngineOutputError(
                f"unit {unit.unit_id}: the engine answered {len(logprobs)} of {len(prompts)} pairs."
            )

        table, rejected = self._to_table(columns, pairs, logprobs, hashes)
        num_reused = sum(isinstance(pair, ReusedScore) for pair in pairs)
        attempt = uuid.uuid4().hex
        footer = Footer(
            fingerprint=self._fingerprint,
            unit_id=unit.unit_id,
            attempt=attempt,
            num_rows=table.num_rows,
            num_rejected=rejected,
            num_reused=num_reused,
            model=self._config.model.name,
            protocol=self._config.protocol.name,
            engine=self._engine.method,
            versions=self._versions,
        )
        committed = self._store.commit(unit.unit_id, attempt, with_footer(table, footer))
        finished, finished_at = time.perf_counter(), time.time()
        return UnitReport(
            unit_id=unit.unit_id,
            worker=self._worker,
            num_rows=table.num_rows,
            committed=committed,
            engine=self._engine.method,
            passed_over=self._engine.passed_over,
            num_rejected=rejected,
            num_reused=num_reused,
            num_prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
            num_dropped_document_tokens=sum(p.num_dropped_document_tokens for p in prompts),
            num_truncated_rows=sum(p.num_dropped_document_tokens > 0 for p in prompts),
            read_seconds=read - started,
            engine_seconds=engine_finished - engine_started,
            commit_seconds=finished - engine_finished,
            # Not read from the clock, which may have been set in between.
            started_at=finished_at - (finished - started),
            finished_at=finished_at,
        )

    def probe(self, unit: WorkUnit) -> None:
        """Read, tokenise and score a unit, to see whether the engine survives; see run."""
        _, pairs, _ = self._read(unit, frozenset())
        prompts = [pair for pair in pairs if isinstance(pair, TokenizedPair)]
        with self._engine_lock:
            self._engine.score(prompts)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _read(
        self, unit: WorkUnit, crashing_rows: frozenset[int]
    ) -> tuple[list[pa.RecordBatch], list[_Prepared], list[bytes | None] | None]:
        """Read and tokenise; texts are dropped batch by batch, their hashes stay where wanted."""
        columns: list[pa.RecordBatch] = []
        pairs: list[_Prepared] = []
        hashes: list[bytes | None] = []
        wants_hashes = self._config.output.pair_hash
        for batch in read_pairs(unit, self._columns, source=self._config.output.source):
            columns.append(batch.columns)
            # Not even the tokenizer sees a crashing row: it may be what dies.
            readable = [
                Rejection(reason=RejectionReason.ENGINE_CRASH) if row in crashing_rows else pair
                for row, pair in enumerate(batch.pairs, start=len(pairs))
            ]
            if wants_hashes or self._score_index:
                hashes += pair_hashes(batch.pairs)
            if self._score_index:
                reused = self._score_index.find(hashes[-len(batch.pairs) :])
            else:
                reused = [None] * len(batch.pairs)
            fresh = [pair for pair, known in zip(readable, reused, strict=True) if not known]
            tokenized = iter(self._protocol.tokenize(fresh))
            pairs += [known or next(tokenized) for known in reused]
        return columns, pairs, hashes if wants_hashes else None

    def _to_table(
        self,
        columns: Sequence[pa.RecordBatch],
        pairs: Sequence[_Prepared],
        logprobs: Sequence[QueryLogprobs],
        hashes: Sequence[bytes | None] | None,
    ) -> tuple[pa.Table, dict[str, int]]:
        """Give every row its score or its rejection; also count rejections by reason."""
        answers = iter(logprobs)
        outcomes: list[Score | Rejection] = []
        row_logprobs: list[QueryLogprobs | None] = []
        for pair in pairs:
            if isinstance(pair, Rejection):
                outcomes.append(pair)
                row_logprobs.append(None)
            elif isinstance(pair, ReusedScore):
                outcomes.append(pair.score)
                row_logprobs.append(pair.logprobs)
            else:
                answer = next(answers)
                outcomes.append(to_score(pair, answer))
                row_logprobs.append(answer)
        rejected = Counter(str(o.reason) for o in outcomes if isinstance(o, Rejection))
        wanted = row_logprobs if self._config.output.query_token_logprobs else None
        return to_table(columns, outcomes, wanted, hashes), dict(rejected)
