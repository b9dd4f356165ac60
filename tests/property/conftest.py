from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: the machine may be busy. The same examples on every machine and in every run.
settings.register_profile(
    "rgpt_batch",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rgpt_batch")
