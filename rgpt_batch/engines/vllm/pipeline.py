"""Engines whose GPUs follow each other: each has some of the layers, and sends on what it computed.

The last one has the model's end, and so the answers: the executor takes its output alone. On the
others `pooler` and head are never asked. vLLM keeps as many steps under way as there are GPUs.
"""

from __future__ import annotations

from typing import Any

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm import models
from rgpt_batch.engines.vllm.hooks import Hook, Method, missing
from rgpt_batch.errors import ConfigError, EngineStartError

# Which models can be split by layers, and what makes room for what a GPU gets from the one before.
# The handler's method came with 0.30, and with it what matters here: model runner V2 counts on all
# ranks how much of a pooling model's prompt is computed. In the source of 0.29 the first rank does
# not, and would take a prompt's second piece for its first.
PIPELINE_HOOKS = (
    Hook(
        "vllm.model_executor.models.registry",
        "_ModelRegistry",
        (Method("is_pp_supported_model", ("architectures", "model_config")),),
    ),
    Hook("vllm.v1.worker.gpu.pp_utils", "PPHandler", ("relay_aux_hidden_states",)),
    Hook("vllm.v1.worker.gpu_worker", "Worker", (Method("execute_dummy_batch", ()),)),
    Hook(
        "vllm.v1.engine.core_client",
        "EngineCoreClient",
        (Method("collective_rpc", ("method",)),),
    ),
)


def check_pipeline(config: JobConfig, args: dict[str, Any]) -> None:
    """Refuse a model that cannot be split by layers, before any of it is loaded.

    Args:
        config: The job's.
        args: Of vllm.EngineArgs.

    Raises:
        ConfigError: vLLM has no such way to run it, or it has too few layers.
        EngineStartError: This vLLM lacks what is asked here.
    """
    size = config.engine.pipeline_parallel_size
    if size == 1:
        return
    if names := missing(PIPELINE_HOOKS):
        raise EngineStartError(
            f"this vLLM has no {', '.join(names)}, so it is not split by layers. Install a version "
            "that has (docs/vllm-versions.md), or set engine.pipeline_parallel_size=1."
        )
    from vllm import EngineArgs

    model = EngineArgs(**args).create_model_config()
    if not model.registry.is_pp_supported_model(model.architectures, model):
        raise ConfigError(
            f"engine.pipeline_parallel_size is {size}, but vLLM cannot split "
            f"{', '.join(models.architectures(config))} by layers. Set "
            "engine.pipeline_parallel_size=1; engine.tensor_parallel_size splits each layer."
        )
    num_layers = model.get_total_num_hidden_layers()
    if num_layers < size:
        raise ConfigError(
            f"engine.pipeline_parallel_size is {size}, but model '{config.model.name}' has "
            f"{num_layers} layers. Set it to {num_layers} at most; engine.tensor_parallel_size "
            "splits each layer."
        )


def make_buffers(config: JobConfig, core: Any) -> None:
    """Have each rank make room for what the rank before it sends.

    vLLM does so in its trial step. On CPUs it leaves that out where nothing is compiled, and the
    first step would fail. (0.32)

    Args:
        config: The job's.
        core: The EngineCoreClient of the vLLM that was started.
    """
    from vllm.platforms import current_platform

    if config.engine.pipeline_parallel_size > 1 and current_platform.is_cpu():
        core.collective_rpc("execute_dummy_batch")
