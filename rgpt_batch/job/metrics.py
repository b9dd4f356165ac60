"""What a job tells monitoring while it runs: numbers by run and worker.

The driver hears of every finished unit, so it counts for all workers. Where the numbers go: to Ray,
where the job runs on it, and to a file in Prometheus' text format, if one is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    write_to_textfile,
)

from rgpt_batch.config.options import JobConfig
from rgpt_batch.executors import Executor
from rgpt_batch.job.progress import Tally
from rgpt_batch.job.totals import EngineTimes
from rgpt_batch.records import UnitFailure, UnitReport

_PUBLISH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Metric:
    """One number, or one for each combination of labels.

    Attributes:
        grows: Whether it is a counter.
    """

    name: str
    description: str
    labels: tuple[str, ...] = ("run",)
    grows: bool = False


_BY_WORKER = ("run", "worker")

PAIRS = Metric("rgpt_batch_pairs_total", "Pairs committed.", _BY_WORKER, True)
UNITS = Metric("rgpt_batch_units_total", "Units committed.", _BY_WORKER, True)
PROMPT_TOKENS = Metric(
    "rgpt_batch_prompt_tokens_total", "Prompt tokens given to engines.", _BY_WORKER, True
)
CACHED_TOKENS = Metric(
    "rgpt_batch_cached_tokens_total",
    "Prompt tokens that a prefix cache had, so that they were not computed.",
    _BY_WORKER,
    True,
)
STAGE_SECONDS = Metric(
    "rgpt_batch_stage_seconds_total",
    "Seconds in reading and tokenising (read), scoring (engine) and publishing (commit).",
    (*_BY_WORKER, "stage"),
    True,
)
REJECTED = Metric(
    "rgpt_batch_rejected_pairs_total", "Pairs without a score.", ("run", "reason"), True
)
REUSED = Metric("rgpt_batch_reused_pairs_total", "Pairs whose score was copied.", ("run",), True)
RETRIES = Metric("rgpt_batch_retries_total", "Attempts at units beyond the first.", ("run",), True)
FAILED_UNITS = Metric(
    "rgpt_batch_failed_units_total", "Units given up after their last attempt.", ("run",), True
)
RESTARTS = Metric("rgpt_batch_worker_restarts", "Workers started in the place of another.")
QUEUE = Metric("rgpt_batch_units_left", "Units that wait or are in flight.")
PLANNED = Metric("rgpt_batch_pairs_planned", "Pairs of the whole job.")
BEFORE = Metric("rgpt_batch_pairs_before", "Pairs that earlier runs had committed.")
BUSY = Metric(
    "rgpt_batch_engine_busy_ratio", "Share of the workers' time in which an engine was at work."
)

METRICS = (
    *(PAIRS, UNITS, PROMPT_TOKENS, CACHED_TOKENS, STAGE_SECONDS, REJECTED, REUSED, RETRIES),
    *(FAILED_UNITS, RESTARTS, QUEUE, PLANNED, BEFORE, BUSY),
)


class Sink(Protocol):
    """Where numbers go."""

    def declare(self, name: str, description: str, labels: Sequence[str], *, grows: bool) -> None:
        """Make a metric known."""
        ...

    def increase(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a counter."""
        ...

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Set a gauge."""
        ...

    def publish(self) -> None:
        """Let others see what was set.

        Raises:
            OSError: They cannot.
        """
        ...


class PrometheusFile:
    """Keeps numbers in a file that is replaced in one step."""

    def __init__(self, path: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._path = path
        self._registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}

    def declare(self, name: str, description: str, labels: Sequence[str], *, grows: bool) -> None:
        """See Sink."""
        if grows:
            self._counters[name] = Counter(name, description, labels, registry=self._registry)
        else:
            self._gauges[name] = Gauge(name, description, labels, registry=self._registry)

    def increase(self, name: str, amount: float, labels: Mapping[str, str]) -> None:
        """See Sink."""
        self._counters[name].labels(**labels).inc(amount)

    def set(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """See Sink."""
        self._gauges[name].labels(**labels).set(value)

    def publish(self) -> None:
        """See Sink."""
        write_to_textfile(self._path, self._registry)


class JobMetrics:
    """The numbers of one run. A context manager: inside of it, they are published now and then.

    Args:
        run_id: The run's name, which becomes a label.
        tally: The job's; others change it.
        executor: What runs the units.
        sinks: Where numbers go; see open_sinks.
        warn: Is told once where numbers cannot be published: scores do not depend on them.
    """

    def __init__(
        self,
        run_id: str,
        tally: Tally,
        executor: Executor,
        sinks: Sequence[Sink],
        warn: Callable[[str], None],
    ) -> None:
        self._run = {"run": run_id}
        self._tally = tally
        self._executor = executor
        self._sinks = sinks
        self._warn = warn
        self._has_warned = False
        self._times = EngineTimes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)
        for sink in sinks:
            for metric in METRICS:
                sink.declare(metric.name, metric.description, metric.labels, grows=metric.grows)

    def __enter__(self) -> Self:
        if self._sinks:
            # So that they are there, and 0, before anything has happened.
            for metric in (REUSED, RETRIES, FAILED_UNITS):
                self._increase(metric, 0)
            self._publish()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sinks:
            self._stop.set()
            self._thread.join()
            self._publish()

    def add(self, outcome: UnitReport | UnitFailure) -> None:
        """Count one finished unit, after the tally has."""
        self._increase(RETRIES, outcome.num_attempts - 1)
        if isinstance(outcome, UnitFailure):
            self._increase(FAILED_UNITS, 1)
            return
        self._times.add(outcome)
        worker = {"worker": outcome.worker}
        self._increase(PAIRS, outcome.num_rows, worker)
        self._increase(UNITS, 1, worker)
        self._increase(PROMPT_TOKENS, outcome.num_prompt_tokens, worker)
        self._increase(CACHED_TOKENS, outcome.num_cached_tokens, worker)
        self._increase(REUSED, outcome.num_reused)
        stages = (
            ("read", outcome.read_seconds),
            ("engine", outcome.engine_seconds),
            ("commit", outcome.commit_seconds),
        )
        for stage, seconds in stages:
            self._increase(STAGE_SECONDS, max(0.0, seconds), {**worker, "stage": stage})
        for reason, number in outcome.num_rejected.items():
            self._increase(REJECTED, number, {"reason": reason})

    def _increase(
        self, metric: Metric, amount: float, labels: Mapping[str, str] | None = None
    ) -> None:
        for sink in self._sinks:
            sink.increase(metric.name, amount, {**self._run, **(labels or {})})

    def _refresh(self) -> None:
        while not self._stop.wait(_PUBLISH_SECONDS):
            self._publish()

    def _publish(self) -> None:
        tally = self._tally
        num_finished = tally.num_units_before + tally.done.num_units + tally.num_units_failed
        values = {
            RESTARTS: self._executor.num_restarts,
            QUEUE: max(0, tally.num_units - num_finished),
            PLANNED: tally.num_rows,
            BEFORE: tally.num_rows_before,
            BUSY: self._times.total.busy_fraction,
        }
        for sink in self._sinks:
            for metric, value in values.items():
                sink.set(metric.name, value, self._run)
            try:
                sink.publish()
            except OSError as error:
                if not self._has_warned:
                    self._has_warned = True
                    self._warn(f"warning: metrics cannot be written: {error}")


def open_sinks(config: JobConfig) -> list[Sink]:
    """Return where a job's numbers go; call it when the executor was entered."""
    sinks: list[Sink] = []
    if config.executor.kind == "ray":
        from rgpt_batch.executors.ray_metrics import RayMetrics

        sinks.append(RayMetrics())
    if config.watch.metrics_file is not None:
        sinks.append(PrometheusFile(config.watch.metrics_file))
    return sinks
