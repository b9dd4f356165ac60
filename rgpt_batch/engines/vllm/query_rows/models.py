"""A vLLM plugin that adds a scoring model for every causal language model.

For `LlamaForCausalLM` it adds `LlamaForCausalLMQueryRows`, with the same weights and layers. It has
a pooler instead of a sampler, and computes the end of the last layer for the pooler's rows alone:
those of the query, or, where the configuration names labels, the prompt's last one. vLLM runs it as
a pooling model.
"""

from __future__ import annotations

from typing import Any

from rgpt_batch.engines.vllm import models

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_SUFFIX = "QueryRows"
# A setting of the model's configuration: ids of the tokens whose logits are the answer.
LABEL_IDS = "rgpt_batch_label_ids"


def query_rows_architecture(architecture: str) -> str:
    """Name the scoring model of a causal language model."""
    return architecture + _SUFFIX


def register() -> None:
    """Add the models to vLLM's registry. Is an entry point, `vllm.general_plugins`."""
    from vllm import ModelRegistry

    # Comes first: our scoring models are built from the classes that are registered.
    models.register()
    for architecture in list(ModelRegistry.get_supported_archs()):
        if architecture.endswith(_CAUSAL):
            name = query_rows_architecture(architecture)
            # Where load_here has registered the class itself, it stays.
            if name not in ModelRegistry.models:
                ModelRegistry.register_model(name, f"{__name__}:{name}")


def __getattr__(name: str) -> Any:
    # vLLM asks for a class by name when it needs it; building it imports vLLM's model.
    if not name.endswith(_SUFFIX):
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from vllm import ModelRegistry

    base = ModelRegistry.models[name.removesuffix(_SUFFIX)].load_model_cls()
    globals()[name] = _query_rows_model(base, name)
    return globals()[name]


def _query_rows_model(base: Any, name: str) -> Any:
    from vllm.model_executor.models.interfaces_base import VllmModelForPooling

    from rgpt_batch.engines.vllm.last_layer import stop_before_last_mlp
    from rgpt_batch.engines.vllm.query_rows.label_pooler import LabelPooler
    from rgpt_batch.engines.vllm.query_rows.pooler import QueryRowsPooler

    class QueryRowsModel(base, VllmModelForPooling):  # type: ignore[misc]
        is_pooling_model = True

        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            finish = stop_before_last_mlp(self)
            model_config = vllm_config.model_config
            vocab_size = model_config.get_vocab_size()

            def logits(rows: Any) -> Any:
                return self.compute_logits(finish(rows))

            label_ids = getattr(model_config.hf_config, LABEL_IDS, None)
            self.pooler = (
                QueryRowsPooler(logits, vocab_size)
                if label_ids is None
                else LabelPooler(logits, vocab_size, label_ids)
            )

    QueryRowsModel.__name__ = QueryRowsModel.__qualname__ = name
    return QueryRowsModel
