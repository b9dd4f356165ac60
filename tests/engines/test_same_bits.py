"""An engine that promises the same bits is tested for them, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.fake import FakeEngine
from rgpt_batch.engines.same_bits import require_same_bits
from rgpt_batch.errors import EngineStartError
from tests.engines.configs import float32_config
from tests.engines.judging import judging_config

LIKELIHOOD = float32_config(Path("none"), "fake", deterministic=True)
JUDGING = judging_config(Path("none"), "fake", {"kind": "classification", "relevant": 0})


class RoundsByTheBatch(FakeEngine):
    """Moves one value of a call by its last bit where the batch is of some size."""

    def __init__(self, sizes: range) -> None:
        super().__init__(num_labels=1)
        self.sizes = sizes

    def score(self, pairs: Sequence[Any]) -> list[Any]:
        answers = super().score(pairs)
        if len(pairs) in self.sizes:
            values = answers[0].values
            values[0] = np.nextafter(values[0], np.float32(0))
            answers[0] = replace(answers[0], values=values)
        return answers


@pytest.mark.parametrize("config", [LIKELIHOOD, JUDGING])
@pytest.mark.parametrize("step_tokens", [96, 2048])
def test_an_engine_whose_bits_are_of_the_prompt_alone_passes(
    config: JobConfig, step_tokens: int
) -> None:
    require_same_bits(FakeEngine(num_labels=1), config, step_tokens)


@pytest.mark.parametrize("config", [LIKELIHOOD, JUDGING])
@pytest.mark.parametrize("sizes", [range(1, 2), range(3, 100)], ids=["alone", "together"])
def test_an_engine_that_differs_by_one_bit_is_refused(config: JobConfig, sizes: range) -> None:
    with pytest.raises(EngineStartError, match=r"other bits.*engine\.deterministic=false"):
        require_same_bits(RoundsByTheBatch(sizes), config, 2048)


@pytest.mark.vllm
def test_on_cpus_a_step_of_vllm_is_one_whole_prompt() -> None:
    from rgpt_batch.engines.vllm.arguments import engine_args, prefix_cache_args

    config = LIKELIHOOD.with_options(
        {
            "engine.vllm_args": {"max_num_seqs": 8, "enable_prefix_caching": True},
            "engine.prefix_caching": True,
        }
    )
    args = engine_args(config, **prefix_cache_args(config))
    assert (args["max_num_seqs"], args["enable_prefix_caching"]) == (1, False)
    # prompt-logprobs and token-ids have vLLM generate a token behind the longest prompt.
    assert args["max_num_batched_tokens"] > config.protocol.max_tokens
