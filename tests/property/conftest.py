from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: the machine may be busy. The same examples on every machine and in every run.
settings.register_profile(
    "rgpt_batch",
    deadline=None,
    database=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
# For `make test-long`: other examples in every run.
settings.register_profile(
    "long", settings.get_profile("rgpt_batch"), derandomize=False, max_examples=3000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "rgpt_batch"))
