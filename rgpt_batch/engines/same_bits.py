"""What an engine has to show before its scores are called deterministic.

The bits of an answer are of its prompt alone: not of what else is in the batch, and not of how
many prompts are handed over at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.base import AnyEngine
from rgpt_batch.engines.label_self_test import label_prompts
from rgpt_batch.engines.self_test import likelihood_prompts
from rgpt_batch.errors import EngineStartError


def require_same_bits(engine: AnyEngine, config: JobConfig, step_tokens: int) -> None:
    """Score prompts together, every second one, and each alone, and compare bytes.

    Args:
        engine: Just started.
        config: Its configuration.
        step_tokens: How many prompt tokens the engine computes in one step.

    Raises:
        EngineStartError: One of the prompts got other bits.
        EngineError: The engine fails.
    """
    prompts: Sequence[Any] = (
        likelihood_prompts(step_tokens, config.protocol.max_tokens)[0]
        if config.score.is_likelihood
        else label_prompts(step_tokens, config)
    )
    together = _bytes(engine, prompts)
    some = _bytes(engine, prompts[::2])
    alone = [each for prompt in prompts for each in _bytes(engine, [prompt])]
    if some != together[::2] or alone != together:
        raise EngineStartError(
            f"{engine.method} gave the same prompts other bits in other batches, so "
            "engine.deterministic cannot be had here. Set engine.deterministic=false, or another "
            "engine.method."
        )


def _bytes(engine: AnyEngine, prompts: Sequence[Any]) -> list[bytes]:
    return [answer.values.tobytes() for answer in engine.score(prompts)]
