"""What the engines share that have vLLM generate text: one token behind each prompt.

The token is dropped. What counts are the logprobs of the prompt's own tokens, which vLLM returns
along with it. Prompts may be one token shorter than vLLM's max_model_len.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm import models
from rgpt_batch.engines.vllm.engine import VllmEngine
from rgpt_batch.records import QueryLogprobs, TokenizedPair

# vLLM keeps the requests of a call and their results as Python objects: about 10 KB per pair where
# these are the logprobs of all prompt tokens.
_MAX_PAIRS_PER_CALL = 4096


class GenerateEngine(VllmEngine[TokenizedPair, QueryLogprobs]):
    """Calls LLM.generate. A method adds what to ask for, and how to read the answer."""

    @abstractmethod
    def _params(self, pairs: Sequence[TokenizedPair], read_cache: bool) -> list[Any]:
        """Make the SamplingParams of every pair."""

    @abstractmethod
    def _values(self, pair: TokenizedPair, output: Any) -> npt.NDArray[np.float32]:
        """Read a pair's logprobs from vLLM's RequestOutput."""

    @override
    def _register_models(self, config: JobConfig) -> None:
        models.register()
        for name in models.architectures(config):
            models.load_here(name, config)

    @override
    def _load(self, args: dict[str, Any]) -> Any:
        from vllm import LLM

        return LLM(**args)

    @property
    @override
    def _core(self) -> Any:
        return self._vllm.llm_engine.engine_core

    @override
    def _score(
        self, pairs: Sequence[TokenizedPair], read_cache: bool
    ) -> list[npt.NDArray[np.float32]]:
        answers: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(pairs), _MAX_PAIRS_PER_CALL):
            window = pairs[start : start + _MAX_PAIRS_PER_CALL]
            prompts = [{"prompt_token_ids": pair.token_ids.tolist()} for pair in window]
            params = self._params(window, read_cache)
            outputs = self._vllm.generate(prompts, params, use_tqdm=False)
            self.num_cached_tokens += sum(output.num_cached_tokens or 0 for output in outputs)
            answers += [self._values(*each) for each in zip(window, outputs, strict=True)]
        return answers

    @override
    def _answer(self, values: npt.NDArray[np.float32]) -> QueryLogprobs:
        return QueryLogprobs(values=values)
