"""Spares the document's rows the last layer's feed-forward part.

In the last layer a document's token has to give its key and value to the query's tokens. What
becomes of it after that nobody reads. So the model stops before that layer's MLP, and only the rows
that predict query tokens go through the MLP and the final norm. In bloom-560m that is 2.4 % of the
work for a pair of 90 tokens, in Llama-2-7B 1.9 %.

No layer's forward is replaced: the last MLP and the norms around it are, by functions that let
everything pass. The layers' code stays vLLM's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Finish = Callable[[torch.Tensor], torch.Tensor]

_MODELS = "vllm.model_executor.models"


def stop_before_last_mlp(model: Any) -> Finish:
    """Make a model return its hidden states as they are before the last MLP.

    Args:
        model: vLLM's causal language model; its weights need not be there yet. Stays as it is where
            its layers are not known here.

    Returns:
        What makes of rows of these hidden states, shape (rows, hidden_size), what compute_logits
        takes. It may write into its argument.
    """
    layers = getattr(getattr(model, "transformer", None), "h", None)
    if layers is not None and _is_a(layers[-1], "bloom.BloomBlock"):
        return _stop_bloom(layers[-1], model.transformer.ln_f)
    layers = getattr(getattr(model, "model", None), "layers", None)
    if layers is not None and _is_a(
        layers[-1], "llama.LlamaDecoderLayer", "qwen2.Qwen2DecoderLayer"
    ):
        return _stop_llama(layers[-1], model.model.norm)
    return lambda rows: rows


def _is_a(layer: Any, *names: str) -> bool:
    """Compare the class itself: a subclass may do something else with its MLP."""
    found = f"{type(layer).__module__}.{type(layer).__qualname__}"
    return found in [f"{_MODELS}.{name}" for name in names]


def _stop_bloom(layer: Any, final_norm: Any) -> Finish:
    """See BloomBlock.forward: h + mlp(norm(h)), or norm(h) + mlp(norm(h))."""
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
    """See LlamaDecoderLayer.forward: norms take what is to be added to the residual, and both."""
    norm, mlp, finish = (m.forward for m in (layer.post_attention_layernorm, layer.mlp, final_norm))

    def finish_rows(rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = finish(mlp(norm(rows)), rows)[0]
        return result

    layer.post_attention_layernorm.forward = lambda x, residual: (x, residual)
    layer.mlp.forward = lambda x: x
    final_norm.forward = lambda x, residual: (x + residual, residual)
    return finish_rows
