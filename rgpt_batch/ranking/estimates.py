"""Means over queries with their uncertainty.

Intervals are percentile bootstrap intervals: queries are drawn with replacement 10,000 times, the
same ones for both runs and all metrics. The p value of a difference is that of a two-sided paired
t-test over queries (both: Smucker, Allan and Carterette, CIKM 2007).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 10_000
CONFIDENCE = 0.95

_SEED = 0
# Query ids that one block of resamples draws; bounds memory, changes no result.
_BLOCK_DRAWS = 2**20

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over queries and its bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One metric of a run, and of a baseline where there is one.

    Attributes:
        difference: Run minus baseline.
        p_value: Of the difference; None for fewer than two queries.
    """

    metric: str
    run: Estimate
    baseline: Estimate | None = None
    difference: Estimate | None = None
    p_value: float | None = None


def summarise(
    names: Sequence[str], values: Values, baseline_values: Values | None
) -> Iterator[MetricResult]:
    """Yield the results of metrics, in order.

    Args:
        names: Of the metrics.
        values: Of the run, shape (num_queries, num_metrics).
        baseline_values: The same of the baseline, if there is one.
    """
    resamples = bootstrap_means(values)
    baseline_resamples = None if baseline_values is None else bootstrap_means(baseline_values)
    for i, name in enumerate(names):
        result = MetricResult(metric=name, run=_estimate(values[:, i], resamples[:, i]))
        if baseline_values is not None and baseline_resamples is not None:
            differences = values[:, i] - baseline_values[:, i]
            result = replace(
                result,
                baseline=_estimate(baseline_values[:, i], baseline_resamples[:, i]),
                difference=_estimate(differences, resamples[:, i] - baseline_resamples[:, i]),
                p_value=p_value(differences),
            )
        yield result


def bootstrap_means(values: Values) -> Values:
    """Return means over queries drawn with replacement, shape (NUM_RESAMPLES, num_metrics).

    The draws depend on the number of queries alone, so that those of two runs are paired.

    Args:
        values: Shape (num_queries, num_metrics).
    """
    generator = np.random.default_rng(_SEED)
    num_queries = len(values)
    block = max(1, _BLOCK_DRAWS // num_queries)
    means = [
        values[generator.integers(num_queries, size=(size, num_queries))].mean(axis=1)
        for size in (min(block, NUM_RESAMPLES - first) for first in range(0, NUM_RESAMPLES, block))
    ]
    return np.concatenate(means)


def _estimate(values: Values, resamples: Values) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resamples, [tail, 1 - tail])
    return Estimate(mean=float(values.mean()), low=float(low), high=float(high))


def p_value(differences: Values) -> float | None:
    """Return the p value of a two-sided paired t-test; None for fewer than two queries."""
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return None
    if np.ptp(differences) == 0:
        # Without any variance the statistic is 0 / 0 or infinite.
        return 1.0 if differences[0] == 0 else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)
