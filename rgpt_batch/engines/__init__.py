"""Engines, by the name in `engine.method`."""

from rgpt_batch.config import JobConfig
from rgpt_batch.engines.base import Engine

__all__ = ["Engine", "create_engine"]


def create_engine(config: JobConfig) -> Engine:
    """Load the configured engine.

    Raises:
        EngineStartError: It cannot be loaded.
    """
    match config.engine.method:
        case "query-rows":
            from rgpt_batch.engines.vllm_query_rows import QueryRowsEngine

            return QueryRowsEngine(config)
        case "prompt-logprobs":
            from rgpt_batch.engines.vllm_prompt_logprobs import PromptLogprobsEngine

            return PromptLogprobsEngine(config)
        case "transformers":
            from rgpt_batch.engines.transformers_ref import TransformersEngine

            return TransformersEngine(config.model)
        case "fake":
            from rgpt_batch.engines.fake import FakeEngine

            return FakeEngine(config.engine.fake_seconds_per_pair)
