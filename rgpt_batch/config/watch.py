"""How a job is watched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rgpt_batch.config.section import Section


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
