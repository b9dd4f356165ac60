"""Engines, by the name in `engine.method`."""

import functools

from rgpt_batch.config.options import EngineMethod, JobConfig
from rgpt_batch.engines.base import Engine
from rgpt_batch.engines.starts import turn_to_start
from rgpt_batch.scoring.model_files import check_weights

__all__ = ["Engine", "create_engine"]

# Fastest first.
_AUTO: tuple[EngineMethod, ...] = ("query-rows", "token-ids", "prompt-logprobs")


def create_engine(config: JobConfig) -> Engine:
    """Load the configured engine.

    Raises:
        ConfigError: The weights are pickled, and that is not allowed.
        EngineStartError: It cannot be loaded, or fails its self-test.
    """
    if config.reads_weights:
        check_weights(config.model)
    with turn_to_start(config):
        if config.engine.method != "auto":
            return _start(config, config.engine.method)
        from rgpt_batch.engines.auto import first_that_works

        return first_that_works([functools.partial(_start, config, method) for method in _AUTO])


def _start(config: JobConfig, method: EngineMethod) -> Engine:
    match method:
        case "query-rows":
            from rgpt_batch.engines.vllm.query_rows.engine import QueryRowsEngine

            return _tested(QueryRowsEngine(config), config)
        case "token-ids":
            from rgpt_batch.engines.vllm.token_ids import TokenIdsEngine

            return _tested(TokenIdsEngine(config), config)
        case "prompt-logprobs":
            from rgpt_batch.engines.vllm.prompt_logprobs import PromptLogprobsEngine

            return PromptLogprobsEngine(config)
        case "transformers":
            from rgpt_batch.engines.transformers_ref import TransformersEngine

            return TransformersEngine(config.model)
        case "fake":
            from rgpt_batch.engines.fake import FakeEngine

            return FakeEngine(config.engine.fake_seconds_per_pair)
        case "auto":
            raise AssertionError("auto is no engine")


def _tested(engine: Engine, config: JobConfig) -> Engine:
    """Return the engine if it passes its self-test, else close it and raise."""
    from rgpt_batch.engines.self_test import self_test
    from rgpt_batch.engines.vllm.arguments import max_num_batched_tokens

    try:
        self_test(engine, config, max_num_batched_tokens(config))
    except BaseException:
        engine.close()
        raise
    return engine
