"""Pairs to measure with: a sample of a job's own input."""

from __future__ import annotations

from dataclasses import dataclass

from rgpt_batch.bench.workload import Workload
from rgpt_batch.errors import ConfigError
from rgpt_batch.planning.estimate import sample_rows
from rgpt_batch.planning.manifest import Manifest
from rgpt_batch.records import ScorePair

# Passes that find out how many pairs fill a turn.
_NUM_WARM_UPS = 4
_MIN_PAIRS_PER_PASS = 8


@dataclass(frozen=True, slots=True)
class SampledTexts:
    """Rows of the input. Each pass has rows of its own, so that no prefix cache has seen them.

    Attributes:
        pairs: In input order, so that rows of a document mostly stand together.
        num_passes: That the pairs are divided among.
    """

    pairs: list[ScorePair]
    num_passes: int

    def draw(self, workload: Workload, num_pairs: int, seed: int) -> list[ScorePair]:
        """Return pairs of one pass: turns count from 1, warm-ups from 0 downwards."""
        size = len(self.pairs) // self.num_passes
        start = (seed - 1) % self.num_passes * size
        return self.pairs[start : start + min(num_pairs, size)]


def sample_texts(manifest: Manifest, num_rows: int, num_turns: int) -> SampledTexts:
    """Read a sample of a job's input.

    Args:
        manifest: The job's.
        num_rows: How many rows to read.
        num_turns: How many turns they have to be enough for.

    Raises:
        ConfigError: There are too few.
        ShardError: The input cannot be read.
    """
    rows = (pair for pairs in sample_rows(manifest, num_rows) for pair in pairs)
    pairs = [pair for pair in rows if isinstance(pair, ScorePair)]
    num_passes = num_turns + _NUM_WARM_UPS
    if len(pairs) < num_passes * _MIN_PAIRS_PER_PASS:
        raise ConfigError(
            f"the sample has {len(pairs):,} pairs with texts; {num_turns} turns and their warm-ups "
            f"need {num_passes * _MIN_PAIRS_PER_PASS:,} at least. Name more input, raise --sample, "
            "or lower --turns."
        )
    return SampledTexts(pairs, num_passes)
