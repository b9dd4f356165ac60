"""A vLLM plugin that lets vLLM load every Bloom checkpoint.

vLLM's Bloom puts `transformer.` before every tensor name that lacks it, so that a checkpoint that
also stores `lm_head.weight` ends in "no module or parameter named 'lm_head' in BloomModel". The
class below takes that tensor out first, and loads it where the embeddings are not tied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ARCHITECTURE = "BloomForCausalLM"


def register() -> None:
    """Put the class in the place of vLLM's own; the entry point `vllm.general_plugins`."""
    from vllm import ModelRegistry

    ModelRegistry.register_model(_ARCHITECTURE, f"{__name__}:{_ARCHITECTURE}")


def __getattr__(name: str) -> Any:
    # vLLM asks for the class by name; importing vllm's model only then keeps register() cheap.
    if name != _ARCHITECTURE:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from vllm.model_executor.models.bloom import BloomForCausalLM as VllmBloom

    class BloomForCausalLM(VllmBloom):  # type: ignore[misc]
        def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
            loaded: set[str] = set()

            def without_head() -> Iterator[tuple[str, Any]]:
                for tensor_name, tensor in weights:
                    if tensor_name != "lm_head.weight":
                        yield tensor_name, tensor
                    elif not self.config.tie_word_embeddings:
                        self.lm_head.weight.weight_loader(self.lm_head.weight, tensor)
                        loaded.add(tensor_name)

            return super().load_weights(without_head()) | loaded  # type: ignore[no-any-return]

    BloomForCausalLM.__qualname__ = _ARCHITECTURE
    globals()[name] = BloomForCausalLM
    return BloomForCausalLM
