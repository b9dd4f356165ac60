"""What a benchmark run has found so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from rgpt_batch.bench.variants import Variant
from rgpt_batch.bench.workload import Workload

BASELINE = "prompt-logprobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One timed pass.

    Attributes:
        flops: That the scores need, nothing shared.
    """

    num_pairs: int
    num_tokens: int
    flops: float
    seconds: float

    @property
    def pairs_per_second(self) -> float:
        """Speed."""
        return self.num_pairs / self.seconds


@dataclass(kw_only=True)
class Result:
    """What was measured of one variant on one workload.

    Attributes:
        group: Results of the same group and workload took turns with each other.
        max_score_difference: Largest |mean logprob - the baseline's|, nats; None where unknown.
    """

    variant: Variant
    workload: Workload
    group: int = 0
    turns: list[Turn] = field(default_factory=list)
    max_score_difference: float | None = None


@dataclass(kw_only=True)
class Findings:
    """All results so far.

    Attributes:
        not_measured: Variant name → why, or since when and why.
    """

    results: list[Result] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
