"""Scoring with vLLM's prompt logprobs: works on every vLLM, on CPU and GPU.

vLLM computes logprobs for every prompt token; those of the query's tokens are kept. One token has
to be generated, so prompts may be at most max_model_len - 1 tokens long.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from rgpt_batch import __version__
from rgpt_batch.config import JobConfig
from rgpt_batch.errors import EngineDead, EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair

# vLLM keeps the logprobs of all prompt tokens of a call as Python objects, about 10 KB per pair.
_MAX_PAIRS_PER_CALL = 4096


class PromptLogprobsEngine:
    """See the module."""

    def __init__(self, config: JobConfig) -> None:
        # In one process there is no engine process that could outlive this one.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        # vLLM on CPU would keep a core free for a front end that this process does not have.
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        try:
            from vllm import LLM, SamplingParams

            from rgpt_batch.engines import vllm_models

            vllm_models.register()
            self._llm: Any = LLM(**_engine_args(config))
        except Exception as error:
            raise EngineStartError(
                f"vLLM cannot start with model '{config.model.name}': {type(error).__name__}: "
                f"{error}\nSet VLLM_LOGGING_LEVEL=INFO to see vLLM's log."
            ) from error
        self._params = SamplingParams(
            max_tokens=1, temperature=0, prompt_logprobs=0, flat_logprobs=True, detokenize=False
        )

    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        """See Engine."""
        import torch

        # In a new thread OpenMP has its own idea of the number of threads until torch is asked for
        # its; vLLM's CPU attention fails when the two differ in mid-step.
        torch.get_num_threads()
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
            # Left to the garbage collector, the old engine could tear down the process groups of
            # the next one.
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None


def _engine_args(config: JobConfig) -> dict[str, Any]:
    model, engine = config.model, config.engine
    return {
        "model": model.name,
        "revision": model.revision,
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "skip_tokenizer_init": True,
        "max_model_len": config.protocol.max_tokens + 1,
        "tensor_parallel_size": engine.tensor_parallel_size,
        # Inside a Ray placement group vLLM would silently take Ray to spread one engine.
        "distributed_executor_backend": "mp" if engine.tensor_parallel_size > 1 else None,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "kv_cache_memory_bytes": engine.kv_cache_bytes,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "enable_chunked_prefill": True,
        # Requests for prompt logprobs never read the prefix cache.
        "enable_prefix_caching": False,
        "enforce_eager": engine.enforce_eager,
        # Part of the key of vLLM's compile cache, which may hold the graph of vLLM's own Bloom.
        "additional_config": {"rgpt_batch": __version__},
        **engine.vllm_args,
    }


def _query_logprobs(pair: TokenizedPair, output: Any) -> QueryLogprobs:
    # Entry t holds log p(token t | tokens before t); entry 0 has no value.
    entries = output.prompt_logprobs
    values = [
        entries[position][int(pair.token_ids[position])].logprob
        for position in range(pair.query_start, len(pair.token_ids))
    ]
    return QueryLogprobs(values=np.array(values, dtype=np.float32))
