"""Scores of an earlier job, found by the hash of their pair.

    high     low      score …      one Arrow file, sorted by hash and mapped into memory:
    0x0001…  0x9f3c…  -2.71        the workers of a machine share its pages, and the system may
    0x0001…  0xa02b…  -4.10        drop them at any time

Looking up a hash is two binary searches: for the record batch, and in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rgpt_batch.output.score_file import LABEL_SCHEMA, TOKEN_LOGPROBS
from rgpt_batch.records import QueryLogprobs, ReusedScore, Score

# The two halves of a hash, big-endian, so that they sort as its bytes do.
HIGH, LOW = "hash_high", "hash_low"

# The columns of scored files that make a Score.
SCORE_COLUMNS = (
    "score",
    "sum_logprob",
    "num_query_tokens",
    "num_document_tokens",
    "num_dropped_document_tokens",
)


def split_hashes(hashes: bytes) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Split hashes that follow each other without gaps into their halves, uint64 (num_hashes,)."""
    halves = np.frombuffer(hashes, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


class ScoreIndex:
    """An opened index; may be used by several threads at once.

    Args:
        path: The file that reuse.build_index has written.
    """

    def __init__(self, path: str) -> None:
        file = pa.ipc.open_file(pa.memory_map(path))
        self._batches = [file.get_batch(index) for index in range(file.num_record_batches)]
        self._high = [batch[HIGH].to_numpy() for batch in self._batches]
        self._low = [batch[LOW].to_numpy() for batch in self._batches]
        self._first_high = np.array([high[0] for high in self._high], dtype=np.uint64)

    def find(self, hashes: Sequence[bytes | None]) -> list[ReusedScore | None]:
        """Look up hashes; returns one entry per hash, None where there is no score for it."""
        found: list[ReusedScore | None] = [None] * len(hashes)
        wanted = [row for row, value in enumerate(hashes) if value is not None]
        high, low = split_hashes(b"".join(value for value in hashes if value is not None))
        batch_of = np.searchsorted(self._first_high, high, side="right") - 1
        for index in np.unique(batch_of[batch_of >= 0]):
            asked = np.flatnonzero(batch_of == index)
            # The last batch that starts at or below the hash holds it, and there its first place
            # is inside. Of two hashes that share 64 bits, which is practically never, one is
            # missed, and its pair scored again.
            places = np.searchsorted(self._high[index], high[asked])
            places[places == len(self._high[index])] = 0
            hit = (self._high[index][places] == high[asked]) & (
                self._low[index][places] == low[asked]
            )
            for row, score in zip(
                asked[hit], _read_scores(self._batches[index], places[hit]), strict=True
            ):
                found[wanted[row]] = score
        return found


def _read_scores(batch: pa.RecordBatch, places: npt.NDArray[np.intp]) -> list[ReusedScore]:
    taken = batch.take(pa.array(places))
    names = [n for n in (*SCORE_COLUMNS, *LABEL_SCHEMA.names) if n in batch.schema.names]
    rows = zip(*(taken[name].to_pylist() for name in names), strict=True)
    fields = ["value" if name == "score" else name for name in names]
    scores = [Score(**dict(zip(fields, row, strict=True))) for row in rows]
    if TOKEN_LOGPROBS not in batch.schema.names:
        return [ReusedScore(score=score, logprobs=None) for score in scores]
    lists = taken[TOKEN_LOGPROBS]
    return [
        ReusedScore(score=score, logprobs=QueryLogprobs(values=values.values.to_numpy()))
        for score, values in zip(scores, lists, strict=True)
    ]
