"""Where a job runs and how it is watched: nothing that changes a score."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rgpt_batch.config.prompts import PositiveInt
from rgpt_batch.config.section import Section


class ExecutorConfig(Section):
    """Where units run."""

    kind: Literal["ray", "local"] = Field(
        "ray", description="ray: workers on a cluster, or on this machine; local: one, in here."
    )
    num_workers: PositiveInt | None = Field(
        None,
        description="Engines. Default: one per GPU (group) of the cluster, also of nodes that join "
        "later; without GPUs one. An autoscaler sees how many are asked for; scoring begins with "
        "the first one.",
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        description="Above 0, no worker runs without GPUs, whatever the cluster has at first. "
        "Default: as many as share one engine, where these are several or the cluster has GPUs "
        "when the job starts, else 0. A fraction lets several engines share a GPU, which one "
        "engine with a small model does not fill.",
    )
    cpus_per_worker: float | None = Field(
        None,
        ge=0,
        description="CPUs that Ray reserves, and the engine's threads where there is no GPU. "
        "Default: 1 with GPUs, else an even share of the cluster's.",
    )
    units_in_flight: PositiveInt = Field(
        3, description="Units per worker at once: one is read, one scored, one committed."
    )
    max_attempts: PositiveInt = Field(3, description="Attempts before a unit counts as failed.")
    place_timeout_seconds: float = Field(
        1800,
        ge=0,
        description="Seconds to wait for a node that is large enough for a worker, such as one "
        "that an autoscaler brings (Ray). A cluster that the job starts gets no more nodes.",
    )
    start_timeout_seconds: float = Field(
        3600, gt=0, description="Seconds that a placed worker may take to load its engine (Ray)."
    )
    join_timeout_seconds: float = Field(
        120,
        gt=0,
        description="Seconds without a sign of life after which the units of a process that "
        "shares the job (`score --join`) are left to the others.",
    )
    unit_timeout_seconds: float | None = Field(
        None,
        gt=0,
        description="Seconds without a finished unit after which a worker counts as hung. "
        "Default: 10 times what the finished units let expect, at least 600.",
    )


class WatchConfig(Section):
    """How others see the job run. Workers on Ray export metrics in any case."""

    metrics_file: str | None = Field(
        None,
        description="Local file *.prom for the metrics, in Prometheus' text format; renewed every "
        "few seconds, in one step.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Of the lines on standard error; json shows one for each unit, too."
    )
