"""Scoring with vLLM's prompt logprobs: works on every vLLM, on CPU and GPU.

vLLM computes logprobs for every prompt token; those of the query's tokens are kept. One token has
to be generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm import common
from rgpt_batch.errors import EngineDead
from rgpt_batch.records import QueryLogprobs, TokenizedPair

# vLLM keeps the logprobs of all prompt tokens of a call as Python objects, about 10 KB per pair.
_MAX_PAIRS_PER_CALL = 4096


class PromptLogprobsEngine:
    """See the module."""

    method = "prompt-logprobs"
    passed_over: tuple[str, ...] = ()

    def __init__(self, config: JobConfig) -> None:
        common.set_environment()
        try:
            from vllm import LLM, SamplingParams

            from rgpt_batch.engines.vllm import models

            models.register()
            for name in models.architectures(config):
                models.load_here(name, config)
            args = common.engine_args(
                config,
                max_model_len=config.protocol.max_tokens,
                # Requests for prompt logprobs never read the prefix cache.
                enable_prefix_caching=False,
            )
            args = common.with_room_for_a_token(args)
            self._llm: Any = LLM(**common.with_attention_for_alibi(args))
        except Exception as error:
            raise common.start_error(config, error) from error
        self._params = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )

    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        """See Engine."""
        common.settle_threads()
        logprobs: list[QueryLogprobs] = []
        for start in range(0, len(pairs), _MAX_PAIRS_PER_CALL):
            window = pairs[start : start + _MAX_PAIRS_PER_CALL]
            prompts = [{"prompt_token_ids": pair.token_ids.tolist()} for pair in window]
            try:
                outputs = self._llm.generate(prompts, self._params, use_tqdm=False)
            except Exception as error:
                # Whatever vLLM raises in mid-step leaves the engine in an unknown state.
                raise EngineDead(f"vLLM failed: {type(error).__name__}: {error}") from error
            logprobs += [_query_logprobs(*each) for each in zip(window, outputs, strict=True)]
        return logprobs

    def close(self) -> None:
        """See Engine. Another engine can then start in this process."""
        if self._llm is not None:
            common.shut_down(self._llm.llm_engine)
            self._llm = None


def _query_logprobs(pair: TokenizedPair, output: Any) -> QueryLogprobs:
    # Entry t holds log p(token t | tokens before t); entry 0 has no value.
    entries = output.prompt_logprobs
    values = [
        entries[position][int(pair.token_ids[position])].logprob
        for position in range(pair.query_start, len(pair.token_ids))
    ]
    return QueryLogprobs(values=np.array(values, dtype=np.float32))
