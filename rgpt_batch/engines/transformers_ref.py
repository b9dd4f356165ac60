"""The reference engine: transformers in float32, one pair at a time.

It repeats the model card's computation: no batching, no padding, no cache. It is slow, and the
other engines are checked against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.engines.base import Engine
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair
from rgpt_batch.scoring.torch_builds import wrong_builds


class TransformersEngine(Engine):
    """Feeds every pair to the model by itself.

    Source: RankingGPT (arXiv 2311.16720), model card.
    """

    method = "transformers"

    def __init__(self, config: ModelConfig) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                config.name,
                revision=config.revision,
                dtype=torch.float32,
                trust_remote_code=config.trust_remote_code,
                use_safetensors=None if config.allow_pickled_weights else True,
                output_loading_info=True,
            )
        except Exception as error:
            # safetensors, pickle and remote code raise exceptions of their own.
            cause = ". ".join(filter(None, [str(error).rstrip("."), wrong_builds()]))
            raise EngineStartError(f"cannot load model '{config.name}': {cause}") from error
        if missing := sorted(loading["missing_keys"]):
            # transformers would go on with random numbers in their place.
            raise EngineStartError(
                f"model '{config.name}': the checkpoint lacks {len(missing)} tensors, such as "
                f"{missing[0]}. Download or convert it again."
            )
        if getattr(model.config, "attn_logit_softcapping", None):
            # torch's attention, the default, leaves Gemma 2's soft cap out without a word.
            model.set_attn_implementation("eager")
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model: Any = model.eval().to(self._device)

    @override
    def score(self, pairs: Sequence[TokenizedPair]) -> list[QueryLogprobs]:
        return [self._score(pair) for pair in pairs]

    def _score(self, pair: TokenizedPair) -> QueryLogprobs:
        import torch

        tokens = torch.from_numpy(pair.token_ids.astype(np.int64)).to(self._device)
        with torch.inference_mode():
            # Position t predicts token t + 1, so the last token is not fed.
            output = self._model(
                tokens[None, :-1], logits_to_keep=pair.num_query_tokens, use_cache=False
            )
            logprobs = torch.log_softmax(output.logits[0].float(), dim=-1)
            values = logprobs.gather(1, tokens[pair.query_start :, None])[:, 0]
        return QueryLogprobs(values=values.cpu().numpy())

    @override
    def close(self) -> None:
        self._model = None
