"""What the engines share that hand requests to vLLM's engine core, whose model answers by itself.

They use parts of vLLM that are not public. Where one is missing the engine does not start.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.engine import VllmEngine
from rgpt_batch.engines.vllm.hooks import Hook, Method, OfInstance
from rgpt_batch.engines.vllm.models import COMMON_HOOKS
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import Answer, Prompt

_PromptT = TypeVar("_PromptT", bound=Prompt)
_AnswerT = TypeVar("_AnswerT", bound=Answer)

# How many times max_num_seqs requests vLLM has at once: no step lacks any, and queues stay short.
_WINDOW = 2

_HOOKS = (
    *COMMON_HOOKS,
    Hook(
        "vllm.pooling_params",
        "PoolingParams",
        keywords=("task", "use_activation", "extra_kwargs", "skip_reading_prefix_cache"),
    ),
    Hook(
        "vllm.v1.engine",
        "EngineCoreRequest",
        keywords=(
            *("request_id", "prompt_token_ids", "pooling_params", "sampling_params"),
            *("mm_features", "lora_request", "cache_salt", "arrival_time", "data_parallel_rank"),
        ),
    ),
    Hook("vllm.v1.engine", "EngineCoreOutput", ("request_id", "pooling_output")),
    Hook(
        "vllm.v1.engine.core_client",
        "EngineCoreClient",
        (Method("add_request", ("request",)), "get_output"),
    ),
)
# What our own poolers need besides.
OWN_MODEL_HOOKS = (
    Hook("vllm.model_executor.layers.pooler", "Pooler", ("get_pooling_updates",)),
    Hook("vllm.model_executor.models.interfaces_base", "VllmModelForPooling"),
    Hook("vllm.v1.pool.metadata", "PoolingStates", (OfInstance("hidden_states_cache"),)),
    Hook(
        "vllm.v1.pool.metadata",
        "PoolingCursor",
        ("seq_lens_cpu", "num_scheduled_tokens_cpu", "last_token_indices_gpu"),
    ),
    Hook(
        "vllm.v1.pool.metadata",
        "PoolingMetadata",
        ("prompt_lens", "pooling_params", "pooling_states", "get_pooling_cursor"),
    ),
)
_OWN_MODELS = "rgpt_batch.engines.vllm.query_rows.models"


class RequestEngine(VllmEngine[_PromptT, _AnswerT]):
    """Runs a vLLM pooling model. A method says what a pair's request is."""

    hooks: ClassVar[tuple[Hook, ...]] = _HOOKS

    def __init__(self, config: JobConfig) -> None:
        super().__init__(config)
        self._window = _WINDOW * config.engine.max_num_seqs
        self._request_ids = itertools.count()

    @abstractmethod
    def _request(self, request_id: str, pair: _PromptT, read_cache: bool) -> Any:
        """Make a pair's EngineCoreRequest."""

    @override
    def _load(self, args: dict[str, Any]) -> Any:
        from vllm import EngineArgs, LLMEngine

        return LLMEngine.from_engine_args(EngineArgs(**args))

    @property
    @override
    def _core(self) -> Any:
        return self._vllm.engine_core

    @override
    def _score(self, pairs: Sequence[_PromptT], read_cache: bool) -> list[npt.NDArray[np.float32]]:
        # The core takes requests as they are. LLMEngine, around it, would check and copy them and
        # double the Python calls per pair.
        core = self._core
        answers = [np.empty(0, np.float32)] * len(pairs)
        waiting = iter(enumerate(pairs))
        running: dict[str, int] = {}
        # A step computes a token at least, unless vLLM plans empty ones for ever.
        most_steps, num_steps = sum(len(pair.token_ids) for pair in pairs), 0
        while True:
            for index, pair in itertools.islice(waiting, self._window - len(running)):
                request_id = str(next(self._request_ids))
                core.add_request(self._request(request_id, pair, read_cache))
                running[request_id] = index
            if not running:
                return answers
            outputs = core.get_output().outputs
            num_steps = 0 if outputs else num_steps + 1
            if num_steps > most_steps:
                raise RuntimeError(
                    f"{len(running):,} requests wait, and {num_steps:,} steps have finished none"
                )
            for output in outputs:
                # A copy: the tensor is a view of the whole step's.
                values = output.pooling_output.numpy().copy()
                answers[running.pop(output.request_id)] = values
                # Not every version that is allowed tells.
                if stats := getattr(output, "prefill_stats", None):
                    self.num_cached_tokens += stats.num_cached_tokens


def register_own_models(config: JobConfig) -> None:
    """Make our scoring models of causal language models known to vLLM.

    Raises:
        EngineStartError: vLLM's other processes would not find them.
    """
    from rgpt_batch.engines.vllm.query_rows import models

    models.register()
    # With several GPUs, the model is looked up in processes that only know installed plugins.
    plugins = {plugin.module for plugin in entry_points(group="vllm.general_plugins")}
    if config.engine.num_ranks > 1 and _OWN_MODELS not in plugins:
        raise EngineStartError(
            "vLLM's workers do not find rgpt_batch's models, because the package is not "
            "installed as it is now. Install it again: pip install --no-deps -e ."
        )


def own_architecture(config: JobConfig) -> str:
    """Load our scoring model for the checkpoint's architecture, and return its name.

    Raises:
        EngineStartError: vLLM knows no causal language model of that name.
    """
    from vllm import ModelRegistry

    from rgpt_batch.engines.vllm.models import architectures, load_here
    from rgpt_batch.engines.vllm.query_rows.models import query_rows_architecture

    known = architectures(config)
    for architecture in known:
        name = query_rows_architecture(architecture)
        if name in ModelRegistry.models:
            load_here(name, config)
            return name
    raise EngineStartError(
        f"model '{config.model.name}': vLLM knows no causal language model {' or '.join(known)}, "
        "which config.json names. Set engine.method=transformers."
    )
