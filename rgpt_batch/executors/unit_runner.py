"""One unit, from reading to commit. No Ray in here.

Several units may be in flight in one runner, each on a thread of its own: while the engine scores
one, the next is read and tokenised and the last one is committed.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine, with_files_here
from rgpt_batch.engines.hardware import worker_hardware
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import PairBatch, read_pairs
from rgpt_batch.output import open_store
from rgpt_batch.output.score_file import Footer, serialize, to_table
from rgpt_batch.planning.versions import installed_versions
from rgpt_batch.records import (
    PreparedPair,
    Prompt,
    Rejection,
    RejectionReason,
    ReusedScore,
    UnitReport,
    WorkUnit,
)
from rgpt_batch.reuse.index import ScoreIndex
from rgpt_batch.scoring.pair_hash import pair_hashes
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.results import to_results


@dataclass(slots=True, kw_only=True)
class _UnitRows:
    """The rows of a unit, tokenised. Their texts are dropped; only the hashes are kept.

    Attributes:
        columns: Ids and passed-through columns, batch by batch.
        pairs: One entry per row.
        hashes: One entry per row.
    """

    columns: list[pa.RecordBatch] = field(default_factory=list)
    pairs: list[PreparedPair] = field(default_factory=list)
    hashes: list[bytes | None] = field(default_factory=list)

    @property
    def prompts(self) -> dict[int, Prompt]:
        """What the engine has to score, by row number."""
        return {row: pair for row, pair in enumerate(self.pairs) if isinstance(pair, Prompt)}


class UnitRunner:
    """A worker: a loaded engine, and all that it takes to turn units into committed files.

    Args:
        worker: The runner's name in reports.
        score_index: A file with the scores of an earlier job, if these are to be reused.

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
        here = with_files_here(config)
        self._protocol = load_protocol(config.protocol, here.model)
        self._score_index = ScoreIndex(score_index) if score_index else None
        self._engine = create_engine(here)
        self._hardware = worker_hardware()
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
        rows = self._read(unit, crashing_rows)
        prompts = rows.prompts
        num_dropped = [p.num_dropped_document_tokens for p in prompts.values()]
        read = time.perf_counter()
        with self._engine_lock:
            engine_started = time.perf_counter()
            num_cached = self._engine.num_cached_tokens
            answers = self._engine.score(list(prompts.values()))
            engine_finished = time.perf_counter()
            num_cached = self._engine.num_cached_tokens - num_cached
        results = to_results(rows.pairs, answers, rows.hashes, f"unit {unit.unit_id}: ")
        rejected = Counter(
            str(r.outcome.reason) for r in results if isinstance(r.outcome, Rejection)
        )
        num_reused = sum(isinstance(pair, ReusedScore) for pair in rows.pairs)
        attempt = uuid.uuid4().hex
        content = serialize(
            to_table(
                rows.columns,
                results,
                logprobs=self._config.output.query_token_logprobs,
                hashes=self._config.output.pair_hash,
                labels=not self._config.score.is_likelihood,
            ),
            Footer(
                fingerprint=self._fingerprint,
                unit_id=unit.unit_id,
                attempt=attempt,
                num_rows=len(results),
                num_rejected=dict(rejected),
                num_reused=num_reused,
                model=self._config.model.name,
                protocol=self._config.protocol.name,
                engine=self._engine.method,
                score_kind=self._config.score.kind,
                versions=self._versions,
            ),
        )
        committed = self._store.commit(unit.unit_id, attempt, content)
        finished, finished_at = time.perf_counter(), time.time()
        return UnitReport(
            unit_id=unit.unit_id,
            worker=self._worker,
            num_rows=len(results),
            committed=committed,
            engine=self._engine.method,
            passed_over=self._engine.passed_over,
            num_rejected=dict(rejected),
            num_reused=num_reused,
            num_prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts.values()),
            num_cached_tokens=num_cached,
            num_dropped_document_tokens=sum(num_dropped),
            num_truncated_rows=sum(number > 0 for number in num_dropped),
            read_seconds=read - started,
            engine_seconds=engine_finished - engine_started,
            commit_seconds=finished - engine_finished,
            # Computed, since somebody may have set the clock in between.
            started_at=finished_at - (finished - started),
            finished_at=finished_at,
            hardware=self._hardware,
        )

    def probe(self, unit: WorkUnit) -> None:
        """Read, tokenise and score a unit, to see whether the engine can; see run."""
        rows = self._read(unit, frozenset())
        with self._engine_lock:
            answers = self._engine.score(list(rows.prompts.values()))
        to_results(rows.pairs, answers, rows.hashes, f"unit {unit.unit_id}: ")

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _read(self, unit: WorkUnit, crashing_rows: frozenset[int]) -> _UnitRows:
        rows = _UnitRows()
        for batch in read_pairs(unit, self._columns, source=self._config.output.source):
            hashes = self._hashes(batch)
            # Not even the tokenizer sees a crashing row: it may be what crashes.
            pairs = [
                Rejection(reason=RejectionReason.ENGINE_CRASH) if row in crashing_rows else pair
                for row, pair in enumerate(batch.pairs, start=len(rows.pairs))
            ]
            found = self._score_index.find(hashes) if self._score_index else [None] * len(pairs)
            rows.pairs += self._protocol.tokenize(
                [known or pair for known, pair in zip(found, pairs, strict=True)]
            )
            rows.columns.append(batch.columns)
            rows.hashes += hashes
        return rows

    def _hashes(self, batch: PairBatch) -> list[bytes | None]:
        if self._config.output.pair_hash or self._score_index:
            return pair_hashes(batch.pairs)
        return [None] * len(batch.pairs)
