"""Whether a job gains from the prefix cache: how many queries its documents have."""

from __future__ import annotations

from collections.abc import Sequence

from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.records import ScorePair, WorkUnit

# Below this, keeping the cache's books costs more than the documents that are not computed again.
_MIN_QUERIES_PER_DOCUMENT = 1.2
_METHODS = ("auto", "query-rows", "token-ids")


def decide_prefix_caching(
    config: JobConfig, columns: Columns, units: Sequence[WorkUnit]
) -> JobConfig:
    """Set engine.prefix_caching where it is not set, by the largest unit.

    Raises:
        ShardError: The unit cannot be read.
    """
    # Prompts of models that judge begin with the same words, whatever the documents are.
    if not config.score.is_likelihood:
        return config
    if config.engine.prefix_caching is not None or config.engine.method not in _METHODS:
        return config
    largest = max(units, key=lambda unit: unit.num_rows)
    pays = queries_per_document(largest, columns) >= _MIN_QUERIES_PER_DOCUMENT
    return config.with_options({"engine.prefix_caching": pays})


def queries_per_document(unit: WorkUnit, columns: Columns) -> float:
    """Count distinct queries per distinct document, on the mean over a unit; 0 without pairs."""
    # Hashes instead of texts: a unit may hold a gigabyte of them.
    documents: set[int] = set()
    pairs: set[int] = set()
    for batch in read_pairs(unit, columns, source=False):
        for pair in batch.pairs:
            if isinstance(pair, ScorePair):
                documents.add(hash(pair.document))
                pairs.add(hash((pair.document, pair.query)))
    return len(pairs) / max(1, len(documents))
