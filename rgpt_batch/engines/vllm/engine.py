"""What all engines on vLLM share: how they start, score and end.

A method adds what differs: the parts of vLLM that it needs, the arguments that it starts vLLM with,
and how pairs go through vLLM.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from typing_extensions import override

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.base import Engine
from rgpt_batch.engines.distinct import score_distinct
from rgpt_batch.engines.vllm.arguments import BATCH_INVARIANT, with_attention_for_alibi
from rgpt_batch.engines.vllm.hooks import Hook, Method, OfInstance, missing
from rgpt_batch.engines.vllm.kernels import check_kernels
from rgpt_batch.engines.vllm.memory import check_memory
from rgpt_batch.engines.vllm.models import COMMON_HOOKS
from rgpt_batch.engines.vllm.pipeline import check_pipeline, make_buffers
from rgpt_batch.errors import ConfigError, EngineDead, EngineStartError
from rgpt_batch.records import Answer, Prompt
from rgpt_batch.scoring.torch_builds import wrong_builds

_PromptT = TypeVar("_PromptT", bound=Prompt)
_AnswerT = TypeVar("_AnswerT", bound=Answer)

# Without these an engine counts as dead after a pair whose values are no numbers.
CACHE_HOOKS = (
    Hook(
        "vllm.v1.engine.core_client",
        "EngineCoreClient",
        ("reset_prefix_cache", Method("collective_rpc", ("method",))),
    ),
    Hook("vllm.v1.worker.gpu_model_runner", "GPUModelRunner", (OfInstance("kv_caches"),)),
)


class VllmEngine(Engine[_PromptT, _AnswerT], Generic[_PromptT, _AnswerT]):
    """An engine on vLLM. A start runs from top to bottom through the methods below.

    Attributes:
        hooks: Parts of vLLM that the method needs, and that another version may lack.
        without_hooks: What the user can do where one is missing.
        num_retries: Pairs that were computed twice, because the prefix cache had hidden a row.

    Raises:
        EngineStartError: vLLM lacks a hook, or does not start with this model.
        ConfigError: The model's files do not fit the configuration.
    """

    hooks: ClassVar[tuple[Hook, ...]] = COMMON_HOOKS
    without_hooks: ClassVar[str] = "Install a version that pyproject.toml allows."

    def __init__(self, config: JobConfig) -> None:
        self.num_retries = 0
        # An LLM or an LLMEngine of vLLM's.
        self._vllm: Any = None
        set_environment()
        if config.engine.deterministic:
            _ask_for_same_bits()
        try:
            self._vllm = self._start(config)
            make_buffers(config, self._core)
        except BaseException as error:
            gc.unfreeze()
            self.close()
            if not isinstance(error, Exception) or isinstance(
                error, (ConfigError, EngineStartError)
            ):
                raise
            raise start_error(config, error) from error

    def _start(self, config: JobConfig) -> Any:
        # First of all: where vLLM cannot be imported, each hook would seem to be missing.
        importlib.import_module("vllm")
        if names := missing(self.hooks):
            raise EngineStartError(f"this vLLM has no {', '.join(names)}. {self.without_hooks}")
        check_kernels(config)
        self._register_models(config)
        # vLLM collects garbage five times while it starts, and looks at all that torch and itself
        # have made on import: 3.5 s of 6 s on a slow core. When it ends, it undoes this.
        gc.collect()
        gc.freeze()
        args = with_attention_for_alibi(self.arguments(config))
        check_pipeline(config, args)
        check_memory(config, args)
        return self._load(args)

    @abstractmethod
    def _register_models(self, config: JobConfig) -> None:
        """Make our models known to vLLM."""

    @classmethod
    @abstractmethod
    def arguments(cls, config: JobConfig) -> dict[str, Any]:
        """Collect the arguments of vllm.EngineArgs. The models are registered."""

    @abstractmethod
    def _load(self, args: dict[str, Any]) -> Any:
        """Start vLLM: an LLM or an LLMEngine."""

    @property
    @abstractmethod
    def _core(self) -> Any:
        """The EngineCoreClient of the vLLM that was started."""

    @abstractmethod
    def _score(self, pairs: Sequence[_PromptT], read_cache: bool) -> list[npt.NDArray[np.float32]]:
        """Bring pairs through vLLM.

        Args:
            pairs: To be scored in this order.
            read_cache: Whether they may use what is in the prefix cache.

        Returns:
            The logprobs of each pair's query tokens, fewer where the cache hid a row; or the logits
            of its labels.
        """

    @abstractmethod
    def _answer(self, values: npt.NDArray[np.float32]) -> _AnswerT:
        """Say what the values of a pair are."""

    @override
    def score(self, pairs: Sequence[_PromptT]) -> list[_AnswerT]:
        found, num_retries = score_distinct(pairs, self._run)
        self.num_retries += num_retries
        return [self._answer(values) for values in found]

    def _run(self, pairs: Sequence[_PromptT], read_cache: bool) -> list[npt.NDArray[np.float32]]:
        _settle_threads()
        try:
            values = self._score(pairs, read_cache)
            if values and not np.isfinite(np.concatenate(values)).all():
                self._forget()
            return values
        except Exception as error:
            # Whatever fails in mid-step leaves vLLM in an unknown state.
            raise EngineDead(f"vLLM failed: {type(error).__name__}: {error}") from error

    def _forget(self) -> None:
        """Clear vLLM's cache after a pair whose values are no numbers.

        Its keys and values are none either. They stay where they were, and some kernels multiply
        what lies behind a prompt's end with 0, which would make no number of the next pair's. Where
        a vLLM keeps its cache elsewhere, this fails, and the engine counts as dead.
        """
        self._core.reset_prefix_cache()
        self._core.collective_rpc(_clear_cache)

    @override
    def close(self) -> None:
        # Another engine can then start in this process. If the garbage collector stopped this one,
        # it could tear down the process groups of the next.
        if self._vllm is None:
            return
        self._core.shutdown()
        self._vllm = None
        # Model runner V1 forbids CUDA graphs once it has captured its own; V2 never allows them.
        monitor = sys.modules.get("vllm.compilation.monitor")
        if allow := getattr(monitor, "set_cudagraph_capturing_enabled", None):
            allow(True)


def _clear_cache(worker: Any) -> None:
    """Run on each of vLLM's workers."""
    for cache in worker.model_runner.kv_caches:
        cache.zero_()


def set_environment() -> None:
    """Set vLLM's environment variables where the caller has not. Call it before importing vLLM."""
    # In one process there is no engine process that could outlive this one.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # vLLM on CPU would keep a core free for a front end that this process does not have.
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Float32 attention on GPUs is Triton's, which would multiply in tf32. Other dtypes do not ask.
    os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")


def _ask_for_same_bits() -> None:
    """Have vLLM take its batch-invariant kernels, which it has for GPUs alone.

    Raises:
        EngineStartError: vLLM is loaded already, and has chosen others.
    """
    import torch

    # Counts without starting CUDA, which vLLM's other processes could not use then.
    if torch.cuda.device_count() == 0 or os.environ.get(BATCH_INVARIANT) == "1":
        return
    if "vllm" in sys.modules:
        raise EngineStartError(
            "engine.deterministic has to be known before vLLM is loaded, and this process has "
            f"loaded it. Start a new process, or set {BATCH_INVARIANT}=1 before this one starts."
        )
    os.environ[BATCH_INVARIANT] = "1"


def start_error(config: JobConfig, error: Exception) -> EngineStartError:
    """Turn what vLLM raised while it started into our error."""
    # Where vLLM finds settings wrong, the first line of its message only counts them.
    cause = (
        "; ".join(each["msg"] for each in error.errors())
        if isinstance(error, ValidationError)
        else error
    )
    advice = "Set VLLM_LOGGING_LEVEL=INFO to see vLLM's log."
    if "derived max_model_len" in str(cause):
        advice = "Lower protocol.max_length to the number of positions that the model has."
    # All in the first line, which is what `auto` passes on.
    causes = ". ".join(filter(None, [f"{type(error).__name__}: {cause}", wrong_builds()]))
    return EngineStartError(
        f"vLLM cannot start with model '{config.model.name}': {causes}\n{advice}"
    )


def _settle_threads() -> None:
    """Make the calling thread fit for a step of vLLM.

    In a new thread OpenMP has its own number of threads until torch is asked for its number.
    vLLM's CPU attention fails when the two differ in mid-step.
    """
    import torch

    torch.get_num_threads()
