"""The tensors of Llama and Qwen2, the layouts that engines load."""

from __future__ import annotations


def decoder_shapes(
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    num_layers: int,
    num_key_value_rows: int,
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a Llama without biases, its head included."""
    hidden, intermediate = hidden_size, intermediate_size
    layer = {
        "self_attn.q_proj.weight": (hidden, hidden),
        "self_attn.k_proj.weight": (num_key_value_rows, hidden),
        "self_attn.v_proj.weight": (num_key_value_rows, hidden),
        "self_attn.o_proj.weight": (hidden, hidden),
        "mlp.gate_proj.weight": (intermediate, hidden),
        "mlp.up_proj.weight": (intermediate, hidden),
        "mlp.down_proj.weight": (hidden, intermediate),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    return {
        "model.embed_tokens.weight": (vocab_size, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocab_size, hidden),
        **{
            f"model.layers.{number}.{name}": shape
            for number in range(num_layers)
            for name, shape in layer.items()
        },
    }
