"""Scoring with vLLM's prompt logprobs: works on every vLLM, on CPU and GPU.

vLLM computes logprobs for every prompt token; those of the query's tokens are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.arguments import engine_args, with_room_for_a_token
from rgpt_batch.engines.vllm.generate import GenerateEngine
from rgpt_batch.records import QueryLogprobs, TokenizedPair


class PromptLogprobsEngine(GenerateEngine):
    """Asks for the logprobs of all prompt tokens."""

    method = "prompt-logprobs"

    @classmethod
    @override
    def arguments(cls, config: JobConfig) -> dict[str, Any]:
        # Requests for prompt logprobs never read the prefix cache.
        return with_room_for_a_token(engine_args(config, enable_prefix_caching=False))

    @override
    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        # Without a prefix cache the order of the pairs does not matter, and no row is hidden.
        return [QueryLogprobs(values=values) for values in self._run(pairs, read_cache=False)]

    @override
    def _params(self, pairs: Sequence[TokenizedPair], read_cache: bool) -> list[Any]:
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )
        return [params] * len(pairs)

    @override
    def _values(self, pair: TokenizedPair, output: Any) -> npt.NDArray[np.float32]:
        # Entry t holds log p(token t | tokens before t); entry 0 has no value.
        entries = output.prompt_logprobs
        values = [
            entries[position][int(pair.token_ids[position])].logprob
            for position in range(pair.query_start, len(pair.token_ids))
        ]
        return np.array(values, dtype=np.float32)
