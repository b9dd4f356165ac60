"""What an engine that judges pairs has to show before it is trusted with a job.

Its logits are of the prompt alone: not of what else is in the batch, of the order, or of what the
prefix cache holds from earlier. Other prompts get other logits. Where the prompt has two segments,
the model is told of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.base import LabelEngine
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import LabelPrompt

# Mean |difference| of a logit, as a share of the standard deviation of the prompts' logits. Batches
# of other shapes round differently. In 16 bit each may be as far from float32 as a check of parity
# allows on average, on either side; see checks.reference for what was measured. In float32 it was
# 2e-5 at most. Another prompt's logit is 1.1 away on average.
_MAX_SHARE = {"float32": 0.01, "float16": 0.05, "bfloat16": 0.3}
# Rounding grows with the logits themselves. A trained model may give all of these prompts, which
# say nothing, nearly the same logits: then 4 units of the last place of a logit, 2^-5 of it in
# bfloat16, are allowed.
_MAX_OF_LOGIT = {"float32": 4 * 2.0**-23, "float16": 4 * 2.0**-10, "bfloat16": 4 * 2.0**-7}
# Any vocabulary has these ids, and they are not special tokens.
_TOKEN_IDS = (10, 200)
_MIN_LENGTH = 8
# Fewer have no standard deviation to speak of.
_MIN_PROMPTS = 4


def label_self_test(engine: LabelEngine, config: JobConfig, step_tokens: int) -> None:
    """Score prompts of mixed lengths together, alone, and once more, and compare.

    Args:
        engine: Just started.
        config: Its configuration.
        step_tokens: How many prompt tokens the engine computes in one step.

    Raises:
        EngineStartError: The engine contradicts itself.
        EngineError: It fails.
    """
    prompts = label_prompts(step_tokens, config)
    together = _logits(engine, prompts, config)
    alone = np.concatenate([_logits(engine, [prompt], config) for prompt in prompts])
    again = _logits(engine, prompts[::-1], config)[::-1]
    limit = max_difference(together, config.model.dtype)
    for what, logits in (("alone", alone), ("once more", again)):
        difference = float(np.abs(logits - together).mean())
        if not difference <= limit:
            raise EngineStartError(
                f"{engine.method} gave the same prompts logits that differ by {difference:.2g} in "
                f"its self-test, together and {what}; {limit:.2g} is allowed."
            )
    if not np.ptp(together, axis=0).any():
        raise EngineStartError(
            f"{engine.method} gave different prompts the same logits in its self-test: "
            f"{together[0].tolist()}."
        )


def max_difference(logits: npt.NDArray[np.float32], dtype: str) -> float:
    """Say how far apart logits of the same prompts may be on average.

    Args:
        logits: Shape (num_prompts, num_labels).
        dtype: As in `model.dtype`; auto is taken for bfloat16, which rounds most.
    """
    if dtype not in _MAX_SHARE:
        dtype = "bfloat16"
    spread = float(np.sqrt(logits.var(axis=0).mean()))
    size = float(np.sqrt(np.square(logits).mean()))
    return max(_MAX_SHARE[dtype] * spread, _MAX_OF_LOGIT[dtype] * size)


def check_types(engine: LabelEngine, config: JobConfig) -> None:
    """Raise EngineStartError where the prompt's segments make no difference.

    For engines of models that have token types.
    """
    prompts = label_prompts(0, config)
    if all(prompt.second_segment is None for prompt in prompts):
        return
    without = [replace(prompt, second_segment=None) for prompt in prompts]
    if (_logits(engine, prompts, config) == _logits(engine, without, config)).all():
        raise EngineStartError(
            f"{engine.method} ignores token types: it gave prompts with and without segment 1 the "
            "same logits in its self-test. Set engine.method=transformers; or, if the model was "
            "trained without token types, leave out segment: 1 in protocol.prompt."
        )


def _logits(
    engine: LabelEngine, prompts: Sequence[LabelPrompt], config: JobConfig
) -> npt.NDArray[np.float32]:
    """Score prompts; shape (num_prompts, num_labels)."""
    answers = [answer.values for answer in engine.score(prompts)]
    shapes = {values.shape for values in answers}
    if shapes != {(len(config.score.labels),)} or len(answers) != len(prompts):
        raise EngineStartError(
            f"{engine.method} gave {len(answers)} answers of shapes {sorted(shapes)} to "
            f"{len(prompts)} prompts in its self-test."
        )
    logits = np.stack(answers)
    if not np.isfinite(logits).all():
        raise EngineStartError(
            f"{engine.method} gave logits from {logits.min()} to {logits.max()} in its self-test. "
            "Often the dtype overflows: try model.dtype=bfloat16 or float32."
        )
    return logits


def label_prompts(step_tokens: int, config: JobConfig) -> list[LabelPrompt]:
    """Make prompts of mixed lengths that fill a step and a bit more; at least four."""
    longest = config.protocol.max_tokens
    has_segments = any(part.segment for part in config.protocol.prompt)
    rng = np.random.default_rng(0)
    prompts: list[LabelPrompt] = []
    num_tokens = 0
    while num_tokens <= 1.25 * step_tokens or len(prompts) < _MIN_PROMPTS:
        length = int(rng.integers(min(_MIN_LENGTH, longest), longest + 1)) if prompts else longest
        prompts.append(
            LabelPrompt(
                token_ids=rng.integers(*_TOKEN_IDS, length, dtype=np.int32),
                second_segment=length // 2 if has_segments else None,
                num_query_tokens=1,
                num_dropped_query_tokens=0,
                num_document_tokens=length - 1,
                num_dropped_document_tokens=0,
            )
        )
        num_tokens += length
    return prompts
