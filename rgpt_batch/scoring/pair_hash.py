"""Recognises a pair by its texts, whatever its ids are and wherever it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rgpt_batch.records import Rejection, ScorePair

# Among 10⁹ different pairs, two share a hash with probability 1.5 · 10⁻²¹.
NUM_BYTES = 16


def pair_hash(pair: ScorePair) -> bytes:
    """Return 16 bytes that depend on the query and the document alone.

    BLAKE2b of the query's length, the query and the document, so that no other split of the same
    characters has the same hash.
    """
    query = pair.query.encode()
    content = b"".join((len(query).to_bytes(8, "little"), query, pair.document.encode()))
    return hashlib.blake2b(content, digest_size=NUM_BYTES).digest()


def pair_hashes(pairs: Sequence[ScorePair | Rejection]) -> list[bytes | None]:
    """Hash pairs in order; None where a row is no pair."""
    return [None if isinstance(pair, Rejection) else pair_hash(pair) for pair in pairs]
