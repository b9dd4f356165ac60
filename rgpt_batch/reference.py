"""The engine that others are checked against, and how far from it a score may be."""

from __future__ import annotations

from rgpt_batch.config import JobConfig

# |mean logprob - float32 reference|, nats. Reduced precision moves single scores a lot (0.44 was
# the largest of 4,300 for SmolLM2-135M in bfloat16); the bound catches wrong scores, not rounding.
_FLOAT32_TOLERANCE = 1e-3
_REDUCED_PRECISION_TOLERANCE = 0.6


def reference_config(config: JobConfig) -> JobConfig:
    """Return the configuration of the same job on the reference engine, transformers in float32.

    That of the fake engine is the fake engine.
    """
    method = "fake" if config.engine.method == "fake" else "transformers"
    return config.model_copy(update={"engine": config.engine.model_copy(update={"method": method})})


def default_tolerance(config: JobConfig) -> float:
    """Return the largest difference to the reference that rounding may make, nats."""
    # What the reference computes itself is float32, whatever `auto` means for other engines.
    is_float32 = config.model.dtype == "float32" or config.engine.method in ("transformers", "fake")
    return _FLOAT32_TOLERANCE if is_float32 else _REDUCED_PRECISION_TOLERANCE
