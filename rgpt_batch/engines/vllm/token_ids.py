"""Scoring with vLLM's prompt_logprob_token_ids: logits for query tokens alone, in public API.

Needs vLLM 0.32 or newer and its model runner V2, which in turn needs Triton, so mostly a GPU. vLLM
does one matrix product per prompt, so this is slower than query-rows; but all of it is public.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.arguments import engine_args, prefix_cache_args, with_room_for_a_token
from rgpt_batch.engines.vllm.generate import GenerateEngine
from rgpt_batch.engines.vllm.hooks import Field, Hook
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import TokenizedPair


class TokenIdsEngine(GenerateEngine):
    """Asks for the logprobs of the query's tokens at the rows that predict them."""

    method = "token-ids"
    hooks = (
        *GenerateEngine.hooks,
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
    without_hooks = "Set engine.method=prompt-logprobs."

    @classmethod
    @override
    def arguments(cls, config: JobConfig) -> dict[str, Any]:
        return with_room_for_a_token(engine_args(config, **prefix_cache_args(config)))

    @override
    def _load(self, args: dict[str, Any]) -> Any:
        from vllm import EngineArgs

        # Known before anything is loaded, which takes minutes where the model is large.
        if not EngineArgs(**args).create_engine_config().use_v2_model_runner:
            raise EngineStartError(
                "vLLM runs its model runner V1 here, and prompt_logprob_token_ids needs V2. Set "
                "engine.method=prompt-logprobs."
            )
        return super()._load(args)

    @override
    def _params(self, pairs: Sequence[TokenizedPair], read_cache: bool) -> list[Any]:
        from vllm import SamplingParams

        return [
            SamplingParams(
                max_tokens=1,
                temperature=0,
                detokenize=False,
                # Row i is for the token at prompt_logprob_start + i + 1.
                prompt_logprob_token_ids=pair.token_ids[pair.query_start :, None],
                prompt_logprob_start=pair.query_start - 1,
                skip_reading_prefix_cache=not read_cache,
            )
            for pair in pairs
        ]

    @override
    def _values(self, pair: TokenizedPair, output: Any) -> npt.NDArray[np.float32]:
        scores = output.prompt_token_id_logprobs
        if scores is None:
            # A cached prefix reached past the first row.
            return np.empty(0, np.float32)
        values: npt.NDArray[np.float32] = scores[:, 0].astype(np.float32)
        return values
