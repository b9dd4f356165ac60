"""Leaves out the last layer's feed-forward part for the document's tokens.

In the last layer, the query's tokens read the keys and values of the document's tokens. Nobody
reads what that layer computes for them afterwards. So the model stops before its MLP, and only the
rows that predict query tokens go through the MLP and the final norm. This saves 2.4 % of the work
for a pair of 90 tokens in bloom-560m, and 1.9 % in Llama-2-7B.

The layers' code stays vLLM's. Only the last MLP and the norms around it are replaced, by functions
that let everything pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rgpt_batch.engines.vllm.hooks import Hook, OfInstance, missing

Finish = Callable[[torch.Tensor], torch.Tensor]

_MODELS = "vllm.model_executor.models"
_NORM_AND_MLP = (OfInstance("post_attention_layernorm"), OfInstance("mlp"))
# Of the layers that are taken apart: what that takes. A layer without it stays as it is.
LAYER_HOOKS = (
    Hook(
        f"{_MODELS}.bloom",
        "BloomBlock",
        (*_NORM_AND_MLP, OfInstance("apply_residual_connection_post_layernorm")),
    ),
    Hook(f"{_MODELS}.llama", "LlamaDecoderLayer", _NORM_AND_MLP),
    Hook(f"{_MODELS}.qwen2", "Qwen2DecoderLayer", _NORM_AND_MLP),
)


def stop_before_last_mlp(model: Any) -> Finish:
    """Make a model return its hidden states as they are before the last MLP.

    Args:
        model: A causal language model of vLLM's; its weights may come later. A model whose layers
            this module does not know stays as it is; so does the part of one that ends before the
            last layer, in whose place vLLM then has another class.

    Returns:
        A function that turns rows of these hidden states, shape (rows, hidden_size), into the input
        of compute_logits. It may write into its argument.
    """
    bloom, *llamas = LAYER_HOOKS
    layers = getattr(getattr(model, "transformer", None), "h", None)
    if layers is not None and _is_a(layers[-1], bloom):
        return _stop_bloom(layers[-1], model.transformer.ln_f)
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is not None and _is_a(layers[-1], *llamas):
        return _stop_llama(layers[-1], model.model.norm)
    return lambda rows: rows


def _is_a(layer: Any, *hooks: Hook) -> bool:
    """Whether the layer is of just this class: a subclass may use its MLP in another way."""
    found = (type(layer).__module__, type(layer).__qualname__)
    return any(found == (hook.module, hook.name) and not missing([hook]) for hook in hooks)


def _stop_bloom(layer: Any, final_norm: Any) -> Finish:
    """Take apart BloomBlock.forward: h + mlp(norm(h)), or norm(h) + mlp(norm(h))."""
    norm, mlp, finish = (m.forward for m in (layer.post_attention_layernorm, layer.mlp, final_norm))
    keeps_normed = layer.apply_residual_connection_post_layernorm

    def finish_rows(rows: torch.Tensor) -> torch.Tensor:
        normed = norm(rows)
        result: torch.Tensor = finish(mlp(normed) + (normed if keeps_normed else rows))
        return result

    layer.post_attention_layernorm.forward = lambda x: x
    layer.mlp.forward = lambda x: x.new_zeros(())
    final_norm.forward = lambda x: x
    return finish_rows


def _stop_llama(layer: Any, final_norm: Any) -> Finish:
    """Take apart LlamaDecoderLayer.forward, whose norms add their two arguments, x and residual."""
    norm, mlp, finish = (m.forward for m in (layer.post_attention_layernorm, layer.mlp, final_norm))

    def finish_rows(rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = finish(mlp(norm(rows)), rows)[0]
        return result

    layer.post_attention_layernorm.forward = lambda x, residual: (x, residual)
    layer.mlp.forward = lambda x: x
    final_norm.forward = lambda x, residual: (x + residual, residual)
    return finish_rows
