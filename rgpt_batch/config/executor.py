"""Where units run, and on how many workers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rgpt_batch.config.prompts import PositiveInt
from rgpt_batch.config.section import Section


class ExecutorConfig(Section):
    """Where units run."""

    kind: Literal["ray", "local"] = Field(
        "ray", description="ray: workers on a cluster, or on this machine; local: one, in here."
    )
    min_workers: PositiveInt | None = Field(
        None,
        description="Engines that are kept to the end, whether they are idle or not. Default: 1.",
    )
    max_workers: PositiveInt | None = Field(
        None,
        description="Engines, as long as units wait for them. Ray is asked for all of them at the "
        "start, so that an autoscaler sees the demand; scoring begins with the first one, and idle "
        "ones are released. Default: one per GPU (group) of the cluster, also of nodes that join "
        "later; without GPUs one.",
    )
    num_workers: PositiveInt | None = Field(
        None, description="Both at once: so many engines from the beginning to the end."
    )
    gpus_per_worker: float | None = Field(
        None,
        ge=0,
        description="Above 0, no worker runs without GPUs, whatever the cluster has at first. "
        "Default: as many as share one engine, where these are several or the cluster has GPUs; 0 "
        "on a machine without GPUs. To a cluster that nodes may join it has to be said while it "
        "has none. A fraction lets several engines share a GPU, which one engine with a small "
        "model does not fill.",
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
    max_attempts: PositiveInt = Field(
        3,
        description="Attempts before a unit counts as failed, or those of its rows are looked for "
        "that the engine cannot score.",
    )
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

    @model_validator(mode="after")
    def _bounds_fit(self) -> ExecutorConfig:
        least, most = self.min_workers, self.max_workers
        if self.num_workers is not None and (least or most):
            raise ValueError(
                "num_workers is min_workers and max_workers in one: set it alone, or leave it out"
            )
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_workers is {least}, above max_workers, which is {most}")
        return self

    @property
    def least_workers(self) -> int:
        """How many engines are kept to the end."""
        return self.num_workers or self.min_workers or 1

    @property
    def most_workers(self) -> int | None:
        """How many engines there may be; None where the cluster decides."""
        return self.num_workers or self.max_workers
