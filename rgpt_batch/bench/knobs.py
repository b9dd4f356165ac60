"""The settings that `tune` turns: dtype alone changes scores, none changes which rows come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from rgpt_batch.bench.variants import Variant
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import ConfigError

_MAX_STEP_TOKENS = 65536
_MIN_STEP_TOKENS = 128
_MAX_SEQUENCES = 4096
_MIN_SEQUENCES = 8
_MAX_ENGINES_PER_GPU = 8
# What computes scores one way, whatever the settings are.
_FIXED_METHODS = ("transformers",)
_METHODS_WITH_PREFIXES = ("auto", "query-rows", "token-ids", "fake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """One choice of settings.

    Attributes:
        max_num_batched_tokens: Prompt tokens per engine step.
        max_num_seqs: Prompts per engine step.
        engines_per_gpu: 1 without GPUs.
        prefix_caching: None where the method does not let one choose.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    engines_per_gpu: int
    prefix_caching: bool | None
    dtype: str

    @property
    def options(self) -> dict[str, Any]:
        """Value by the option's name."""
        options: dict[str, Any] = {
            "engine.max_num_batched_tokens": self.max_num_batched_tokens,
            "engine.max_num_seqs": self.max_num_seqs,
            "engine.prefix_caching": self.prefix_caching,
            "executor.gpus_per_worker": 1 / self.engines_per_gpu,
            "model.dtype": self.dtype,
        }
        if self.prefix_caching is None:
            del options["engine.prefix_caching"]
        return options

    def changes_from(self, other: Knobs) -> dict[str, Any]:
        """Return the options that are not as in the other choice."""
        return {name: v for name, v in self.options.items() if v != other.options.get(name)}

    def variant(self, name: str, method: str) -> Variant:
        """Return what a benchmark measures."""
        engine: dict[str, Any] = {
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "max_num_seqs": self.max_num_seqs,
        }
        if self.prefix_caching is not None:
            engine["prefix_caching"] = self.prefix_caching
        return Variant(
            name=name,
            method=method,
            num_engines=self.engines_per_gpu,
            engine=engine,
            shares_documents=True,
            dtype=self.dtype,
        )


def current_knobs(config: JobConfig, *, num_step_tokens: int, has_gpu: bool) -> Knobs:
    """Return the settings of a configuration.

    Args:
        config: With engine.prefix_caching set, where that is decided by the input.
        num_step_tokens: What is in force where the configuration does not say it.
        has_gpu: Whether engines run on GPUs here.

    Raises:
        ConfigError: There is nothing to tune.
    """
    if config.engine.method in _FIXED_METHODS:
        raise ConfigError(
            f"engine.method {config.engine.method} has no settings to tune. Leave it out, or name "
            "another."
        )
    share = config.executor.gpus_per_worker
    has_prefixes = config.score.is_likelihood and config.engine.method in _METHODS_WITH_PREFIXES
    return Knobs(
        max_num_batched_tokens=config.engine.max_num_batched_tokens or num_step_tokens,
        max_num_seqs=config.engine.max_num_seqs,
        engines_per_gpu=round(1 / share) if has_gpu and share and share < 1 else 1,
        prefix_caching=config.engine.prefix_caching is not False if has_prefixes else None,
        dtype=config.model.dtype,
    )


# From a choice to the next one in a direction; None where there is none.
Step = Callable[[Knobs], Knobs | None]


def directions(start: Knobs, config: JobConfig, *, has_gpu: bool) -> Iterator[tuple[Step, ...]]:
    """Yield, knob by knob, the directions to turn it in; what usually matters most comes first."""
    if start.prefix_caching is not None:
        yield (lambda knobs: replace(knobs, prefix_caching=not knobs.prefix_caching),)
    yield (_more_step_tokens, _fewer_step_tokens)
    yield (_more_sequences, _fewer_sequences)
    if has_gpu and config.engine.num_ranks == 1:
        yield (_more_engines, _fewer_engines)


def other_dtypes(start: Knobs, *, computes_16_bit: bool) -> list[Knobs]:
    """Return the choices with another dtype of 16 bit; none where the hardware emulates these."""
    names = ("bfloat16", "float16") if computes_16_bit else ()
    return [replace(start, dtype=name) for name in names if name != start.dtype]


def _more_step_tokens(knobs: Knobs) -> Knobs | None:
    wanted = 2 * knobs.max_num_batched_tokens
    return None if wanted > _MAX_STEP_TOKENS else replace(knobs, max_num_batched_tokens=wanted)


def _fewer_step_tokens(knobs: Knobs) -> Knobs | None:
    wanted = knobs.max_num_batched_tokens // 2
    # vLLM refuses steps of fewer tokens than prompts.
    least = max(_MIN_STEP_TOKENS, knobs.max_num_seqs)
    return None if wanted < least else replace(knobs, max_num_batched_tokens=wanted)


def _more_sequences(knobs: Knobs) -> Knobs | None:
    wanted = 2 * knobs.max_num_seqs
    most = min(_MAX_SEQUENCES, knobs.max_num_batched_tokens)
    return None if wanted > most else replace(knobs, max_num_seqs=wanted)


def _fewer_sequences(knobs: Knobs) -> Knobs | None:
    wanted = knobs.max_num_seqs // 2
    return None if wanted < _MIN_SEQUENCES else replace(knobs, max_num_seqs=wanted)


def _more_engines(knobs: Knobs) -> Knobs | None:
    wanted = 2 * knobs.engines_per_gpu
    return None if wanted > _MAX_ENGINES_PER_GPU else replace(knobs, engines_per_gpu=wanted)


def _fewer_engines(knobs: Knobs) -> Knobs | None:
    wanted = knobs.engines_per_gpu // 2
    return None if wanted < 1 else replace(knobs, engines_per_gpu=wanted)
