"""The engine that others are checked against, and how far from it a score may be."""

from __future__ import annotations

from rgpt_batch.config.options import JobConfig

# |mean logprob - float32 reference|, nats. Measured for SmolLM2-135M: float32 9e-6 and float16
# 0.007 at most in 100 pairs, bfloat16 0.083 in those and 0.44 in 4,300. In bfloat16 rounding hides
# small faults: with half of its RoPE base the model is off by 0.18 at most, 0.043 on average. So to
# know that an engine computes the model, compare in float32; in bfloat16 only gross errors show.
_TOLERANCES = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.6}


def reference_config(config: JobConfig) -> JobConfig:
    """Return the configuration of the same job on the reference engine, transformers in float32.

    That of the fake engine is the fake engine.
    """
    if config.engine.method == "fake":
        return config
    return config.with_options({"engine.method": "transformers", "model.dtype": "float32"})


def default_tolerance(config: JobConfig) -> float:
    """Return the largest difference to the reference that rounding may make, nats."""
    # What the reference computes itself is float32, whatever `auto` means for other engines.
    is_float32 = config.engine.method in ("transformers", "fake")
    dtype = "float32" if is_float32 else config.model.dtype
    return _TOLERANCES.get(dtype, _TOLERANCES["bfloat16"])
