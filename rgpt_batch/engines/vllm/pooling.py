"""Logits of labels, from a classification head or from the vocabulary.

* classification: vLLM's own model of the checkpoint, BertForSequenceClassification or
  LlamaForSequenceClassification, gives the logits of its head.
* label-tokens: our scoring model of a causal language model gives the logits of the labels behind
  the prompt. vLLM's way, to make a head of two rows of the vocabulary when it loads, does not know
  of what models do to their logits: soft caps, scales, biases.

No softmax, no sigmoid: those are for scoring.score. vLLM takes which one to add from the model's
configuration, and adds none to a model of regression. Logits are computed in float32, as vLLM does
for all heads of pooling models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.label_self_test import check_types
from rgpt_batch.engines.references import head_rows
from rgpt_batch.engines.vllm import models
from rgpt_batch.engines.vllm.arguments import (
    engine_args,
    prefix_cache_args,
    with_room_for_a_token,
)
from rgpt_batch.engines.vllm.hooks import Hook
from rgpt_batch.engines.vllm.request_engine import (
    OWN_MODEL_HOOKS,
    RequestEngine,
    own_architecture,
    register_own_models,
)
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import LabelLogits, LabelPrompt
from rgpt_batch.scoring.labels import label_ids

_ACTIVATIONS = "vllm.model_executor.layers.pooler.activations"
# What chooses the function behind a head, and the one that changes nothing.
_HEAD_HOOKS = (
    Hook(_ACTIVATIONS, "get_act_fn", keywords=("config", "static_num_labels")),
    Hook(_ACTIVATIONS, "PoolerIdentity"),
)


class PoolingEngine(RequestEngine[LabelPrompt, LabelLogits]):
    """Hands requests to vLLM's engine core, whose model answers with logits."""

    method = "pooling"
    hooks = (*RequestEngine.hooks, *OWN_MODEL_HOOKS, *_HEAD_HOOKS)
    without_hooks = (
        "Set engine.method=transformers, or install a version that pyproject.toml allows."
    )

    def __init__(self, config: JobConfig) -> None:
        # Of what the model answers: a head may have more labels than are asked for.
        self._rows = list(range(len(config.score.labels)))
        self._has_types = False
        super().__init__(config)
        try:
            self._check(config)
        except BaseException:
            self.close()
            raise

    def _check(self, config: JobConfig) -> None:
        if "classify" not in self._core.get_supported_tasks():
            raise EngineStartError(
                f"model '{config.model.name}' has no classification head that vLLM knows. Name a "
                "checkpoint of a classifier, or set engine.method=transformers."
            )
        if self._has_types:
            check_types(self, config)

    @override
    def _register_models(self, config: JobConfig) -> None:
        if config.score.kind == "label-tokens":
            register_own_models(config)
            return
        models.register()
        hf_config = models.hf_config(config)
        self._rows = head_rows(config, int(hf_config.num_labels))
        self._has_types = (getattr(hf_config, "type_vocab_size", None) or 0) > 1
        for name in models.architectures(config):
            # Where vLLM has no such class, it makes one of the causal language model's.
            models.load_here(name, config)
            models.load_here(name.replace("ForSequenceClassification", "ForCausalLM"), config)

    @classmethod
    @override
    def arguments(cls, config: JobConfig) -> dict[str, Any]:
        if config.score.kind == "label-tokens":
            from rgpt_batch.engines.vllm.query_rows.models import LABEL_IDS

            args = engine_args(config, runner="pooling", **prefix_cache_args(config))
            overrides = {
                **args.get("hf_overrides", {}),
                "architectures": [own_architecture(config)],
                LABEL_IDS: label_ids(config.model, config.score),
            }
            return with_room_for_a_token(args | {"hf_overrides": overrides})
        from vllm import EngineArgs

        args = _head_args(config)
        if EngineArgs(**args).create_model_config().is_chunked_prefill_supported:
            return with_room_for_a_token(_head_args(config, **prefix_cache_args(config)))
        # All tokens of a prompt see each other, so it is computed in one step, and nothing of it
        # can be of use to another.
        return args | {
            "enable_chunked_prefill": False,
            "enable_prefix_caching": False,
            "max_num_batched_tokens": max(args["max_num_batched_tokens"], args["max_model_len"]),
        }

    @override
    def _request(self, request_id: str, pair: LabelPrompt, read_cache: bool) -> Any:
        from rgpt_batch.engines.vllm.query_rows.request import to_label_request

        return to_label_request(request_id, pair, read_cache=read_cache, types=self._has_types)

    @override
    def _answer(self, values: npt.NDArray[np.float32]) -> LabelLogits:
        return LabelLogits(values=values[self._rows])


def _head_args(config: JobConfig, **own: Any) -> dict[str, Any]:
    """Collect the arguments for a classification head whose logits vLLM leaves as they are."""
    args = engine_args(config, runner="pooling", **own)
    return args | {"hf_overrides": {**args.get("hf_overrides", {}), "problem_type": "regression"}}
