"""The engine that others are checked against, and how far their scores may be from its."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine
from rgpt_batch.planning.identity import Identity
from rgpt_batch.records import Prompt, Rejection, ScorePair
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.score import to_score

# |mean logprob - float32 reference|, nats. Measured for SmolLM2-135M: float32 9e-6 and float16
# 0.007 at most in 100 pairs, bfloat16 0.083 in those and 0.44 in 4,300. In bfloat16 rounding hides
# small faults: with half of its RoPE base the model is off by 0.18 at most, 0.043 on average. So to
# know that an engine computes the model, compare in float32; in bfloat16 only gross errors show.
#
# Logits of labels have no common scale, and 16 bit round them by a share of it: so these limits are
# for logits whose standard deviation is 1, or less, and grow with it. Largest difference of one,
# in standard deviations, for small random models in 20 or 30 prompts, float16 and bfloat16:
# MonoBERT 0.06 and 0.3, RankLLaMA 0.04 and 0.08, XLM-RoBERTa 0.01 and 0.08, Qwen2 0.02 and 0.1,
# Gemma 2 0.01 and 0.05, MonoT5 0.03 and 0.2, RankT5 0.02 and 0.2 (transformers, CPU, 2026-11-27).
# In float32 vLLM is off by 4e-5 at most, where they deviate by 1.8.
_TOLERANCES = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.6}


def reference_config(config: JobConfig) -> JobConfig:
    """Return the configuration of the same job on the reference engine, transformers in float32.

    That of the fake engine is the fake engine.
    """
    if config.engine.method == "fake":
        return config
    return config.with_options({"engine.method": "transformers", "model.dtype": "float32"})


def default_tolerance(config: JobConfig, expected: Sequence[float | None]) -> float:
    """Return the largest difference to the reference that rounding may make.

    Args:
        config: The job's.
        expected: What the reference says of a sample; None where it rejects a row.
    """
    # What the reference computes itself is float32, whatever `auto` means for other engines.
    is_float32 = config.engine.method in ("transformers", "fake")
    dtype = "float32" if is_float32 else config.model.dtype
    limit = _TOLERANCES.get(dtype, _TOLERANCES["bfloat16"])
    known = [value for value in expected if value is not None]
    if config.score.is_likelihood or dtype == "float32" or not known:
        return limit
    return limit * max(1.0, float(np.std(known)))


def compared_column(identity: Identity) -> Literal["score", "logit"]:
    """Name the output column to compare: logits, where scores are made of them.

    A log-probability near 0 would hide how far its logits are off.
    """
    return "logit" if identity.judges else "score"


class Reference:
    """The reference engine with the job's protocol, in this process."""

    def __init__(self, config: JobConfig) -> None:
        self._protocol = load_protocol(config.protocol, config.model)
        self._engine = create_engine(reference_config(config))

    def values(
        self, pairs: Sequence[ScorePair | Rejection], column: Literal["score", "logit"]
    ) -> list[float | None]:
        """Score pairs, and return what stands in a column; None where the pair is rejected."""
        prepared = self._protocol.tokenize(pairs)
        prompts = {row: p for row, p in enumerate(prepared) if isinstance(p, Prompt)}
        answers = dict(zip(prompts, self._engine.score(list(prompts.values())), strict=True))
        scores = {row: to_score(prompts[row], answers[row]) for row in prompts}
        found = {
            row: score.value if column == "score" else score.logit for row, score in scores.items()
        }
        return [found.get(row) for row in range(len(prepared))]

    def close(self) -> None:
        """Free the model."""
        self._engine.close()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deviation:
    """How far scores are from the reference's, row by row.

    Attributes:
        rejected_by_one: Rows that one side has scored and the other has not.
        rows: Rows that both have scored, shape (num_scored,).
        expected: The reference's scores of these rows.
        found: The scores in question.
    """

    rejected_by_one: tuple[int, ...]
    rows: npt.NDArray[np.intp]
    expected: npt.NDArray[np.float64]
    found: npt.NDArray[np.float64]

    @property
    def differences(self) -> npt.NDArray[np.float64]:
        """|found - expected|, shape (num_scored,)."""
        return np.abs(self.found - self.expected)

    @property
    def largest(self) -> float:
        """The largest difference; 0 where there is none."""
        return float(self.differences.max(initial=0.0))

    def too_far(self, tolerance: float) -> list[int]:
        """Places in `rows` whose difference is above the tolerance or not a number."""
        return [int(place) for place in np.flatnonzero(~(self.differences <= tolerance))]


def deviation(expected: Sequence[float | None], found: Sequence[float | None]) -> Deviation:
    """Compare scores with the reference's.

    Args:
        expected: The reference's, one per row; None where it rejects the row.
        found: Those in question, of the same rows.
    """
    both = list(zip(expected, found, strict=True))
    pairs = {row: pair for row, pair in enumerate(both) if None not in pair}
    values = np.array(list(pairs.values()), np.float64).reshape(-1, 2)
    return Deviation(
        rejected_by_one=tuple(row for row, (a, b) in enumerate(both) if (a is None) != (b is None)),
        rows=np.array(list(pairs), np.intp),
        expected=values[:, 0],
        found=values[:, 1],
    )
