"""What was expected of a job, by the plan that was recorded."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from rgpt_batch.output import Store
from rgpt_batch.planning.manifest import Manifest


class Effort(BaseModel):
    """What `plan` expects of a job at a speed; cost is None where no price was given."""

    num_rows_left: int
    seconds: float
    worker_hours: float
    cost: float | None


class Estimate(BaseModel):
    """What `plan --record` has said; low and high are equal where a speed was known."""

    low: Effort
    high: Effort


def recorded_estimate(store: Store, manifest: Manifest) -> Estimate | None:
    """Return the estimate of a job; None where there is none, or of another job or version."""
    found = store.read_estimate() or {}
    if found.get("fingerprint") != manifest.fingerprint:
        return None
    try:
        return Estimate.model_validate(found)
    except ValidationError:
        return None
