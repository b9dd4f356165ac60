"""Whether a job gains from the prefix cache: how many queries its documents have in a unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rgpt_batch.config.options import JobConfig
from rgpt_batch.input.columns import Columns
from rgpt_batch.input.pairs import read_pairs
from rgpt_batch.records import ScorePair, WorkUnit

# Below this, keeping the cache's books costs more than the documents that are not computed again.
_MIN_QUERIES_PER_DOCUMENT = 1.2
# Units that are looked at; they are spread evenly over those that are to be scored.
_NUM_SAMPLED = 8
_METHODS = ("auto", "query-rows", "token-ids")


def decide_prefix_caching(
    config: JobConfig, columns: Columns, units: Sequence[WorkUnit]
) -> JobConfig:
    """Set engine.prefix_caching where it is not set, by a sample of the units.

    Raises:
        ShardError: A unit cannot be read.
    """
    # Prompts of models that judge begin with the same words, whatever the documents are.
    if not config.score.is_likelihood:
        return config
    if config.engine.deterministic:
        # Nor is there a cache where the same bits are asked for.
        return config
    if config.engine.prefix_caching is not None or config.engine.method not in _METHODS:
        return config
    sampled = units[:: -(-len(units) // _NUM_SAMPLED)]
    pays = queries_per_document(sampled, columns) >= _MIN_QUERIES_PER_DOCUMENT
    return config.with_options({"engine.prefix_caching": pays})


def queries_per_document(units: Iterable[WorkUnit], columns: Columns) -> float:
    """Count distinct queries per distinct document of a unit, over all units; 0 without pairs."""
    num_documents = num_pairs = 0
    for unit in units:
        # Hashes instead of texts: a unit may hold a gigabyte of them.
        documents: set[int] = set()
        pairs: set[int] = set()
        for batch in read_pairs(unit, columns, source=False):
            for pair in batch.pairs:
                if isinstance(pair, ScorePair):
                    documents.add(hash(pair.document))
                    pairs.add(hash((pair.document, pair.query)))
        num_documents += len(documents)
        num_pairs += len(pairs)
    return num_pairs / max(1, num_documents)
