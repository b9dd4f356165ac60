"""Metrics in Ray: each node's agent exports them to whoever scrapes the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray.util.metrics import Counter, Gauge


class RayMetrics:
    """Hands numbers to Ray, which puts `ray_` before the names."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}

    def declare(self, name: str, description: str, labels: Sequence[str], *, grows: bool) -> None:
        """Make a metric known."""
        if grows:
            self._counters[name] = Counter(name, description=description, tag_keys=tuple(labels))
        else:
            self._gauges[name] = Gauge(name, description=description, tag_keys=tuple(labels))

    def increase(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a counter."""
        # Ray refuses 0.
        if amount > 0:
            self._counters[name].inc(amount, tags=dict(labels))

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""
        self._gauges[name].set(value, tags=dict(labels))

    def publish(self) -> None:
        """Do nothing: Ray sends them by itself."""
