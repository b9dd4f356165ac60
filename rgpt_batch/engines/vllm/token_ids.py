"""Scoring with vLLM's prompt_logprob_token_ids: logits for query tokens alone, in public API.

Needs vLLM 0.32 or newer and its model runner V2, which in turn needs Triton, so mostly a GPU. One
matmul per prompt, so slower than query-rows, but nothing that is not public. One token has to be
generated, so prompts may be at most max_model_len - 1 tokens long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.distinct import score_distinct
from rgpt_batch.engines.vllm import common
from rgpt_batch.engines.vllm.hooks import Field, Hook, missing
from rgpt_batch.errors import EngineDead, EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair

# vLLM keeps the requests of a call and their results as Python objects.
_MAX_PAIRS_PER_CALL = 4096

_HOOKS = (
    Hook(
        "vllm.sampling_params",
        "SamplingParams",
        (
            # In 0.31 a list[int]: the ids of every row.
            Field("prompt_logprob_token_ids", np.ndarray),
            *("prompt_logprob_start", "skip_reading_prefix_cache"),
        ),
    ),
    Hook("vllm.config", "VllmConfig", ("use_v2_model_runner",)),
)


class TokenIdsEngine:
    """See the module.

    Attributes:
        num_retries: Pairs that were computed twice, because vLLM had dropped their logprobs.
    """

    method = "token-ids"
    passed_over: tuple[str, ...] = ()

    def __init__(self, config: JobConfig) -> None:
        self.num_retries = 0
        self._llm: Any = None
        common.set_environment()
        try:
            self._llm = _start(config)
        except EngineStartError:
            raise
        except Exception as error:
            raise common.start_error(config, error) from error
        if not self._llm.llm_engine.vllm_config.use_v2_model_runner:
            self.close()
            raise EngineStartError(
                "vLLM runs its model runner V1 here, and prompt_logprob_token_ids needs V2. Set "
                "engine.method=prompt-logprobs."
            )

    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        """See Engine.

        Raises:
            EngineOutputError: vLLM dropped logprobs although nothing was taken from its cache.
        """
        logprobs, num_retries = score_distinct(pairs, self._run)
        self.num_retries += num_retries
        return logprobs

    def _run(
        self, pairs: Sequence[TokenizedPair], read_cache: bool
    ) -> list[npt.NDArray[np.float32]]:
        common.settle_threads()
        answers: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(pairs), _MAX_PAIRS_PER_CALL):
            window = pairs[start : start + _MAX_PAIRS_PER_CALL]
            prompts = [{"prompt_token_ids": pair.token_ids.tolist()} for pair in window]
            params = [_sampling_params(pair, read_cache) for pair in window]
            try:
                outputs = self._llm.generate(prompts, params, use_tqdm=False)
            except Exception as error:
                # Whatever vLLM raises in mid-step leaves the engine in an unknown state.
                raise EngineDead(f"vLLM failed: {type(error).__name__}: {error}") from error
            answers += [_values(output) for output in outputs]
        return answers

    def close(self) -> None:
        """See Engine. Another engine can then start in this process."""
        if self._llm is not None:
            common.shut_down(self._llm.llm_engine)
            self._llm = None


def _start(config: JobConfig) -> Any:
    from vllm import LLM

    from rgpt_batch.engines.vllm import models

    if names := missing(_HOOKS):
        raise EngineStartError(
            f"this vLLM has no {', '.join(names)}. Set engine.method=prompt-logprobs."
        )
    models.register()
    for name in models.architectures(config):
        models.load_here(name, config)
    args = common.engine_args(
        config,
        max_model_len=config.protocol.max_tokens,
        **common.prefix_cache_args(config),
    )
    args = common.with_room_for_a_token(args)
    return LLM(**common.with_attention_for_alibi(args))


def _sampling_params(pair: TokenizedPair, read_cache: bool) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0,
        detokenize=False,
        # Row i is for the token at prompt_logprob_start + i + 1.
        prompt_logprob_token_ids=pair.token_ids[pair.query_start :, None],
        prompt_logprob_start=pair.query_start - 1,
        skip_reading_prefix_cache=not read_cache,
    )


def _values(output: Any) -> npt.NDArray[np.float32]:
    """Get the logprobs; none where a cached prefix reached past the first row."""
    scores = output.prompt_token_id_logprobs
    if scores is None:
        return np.empty(0, np.float32)
    values: npt.NDArray[np.float32] = scores[:, 0].astype(np.float32)
    return values
