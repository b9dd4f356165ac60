"""Engines, by the name in `engine.method`."""

import functools

from rgpt_batch.config.options import ENGINES, EngineMethod, JobConfig
from rgpt_batch.engines.base import AnyEngine, Engine
from rgpt_batch.engines.starts import turn_to_start
from rgpt_batch.errors import EngineStartError, ShardError, StorageError
from rgpt_batch.scoring.model_files import check_weights, on_this_machine

# Of the prompts whose bits are compared; some prompts, and more than a step of vLLM on CPUs.
_SAME_BITS_TOKENS = 2048

__all__ = ["AnyEngine", "Engine", "create_engine", "with_files_here"]


def create_engine(config: JobConfig) -> AnyEngine:
    """Load the configured engine.

    Raises:
        ConfigError: The weights are pickled, and that is not allowed; or the vocabulary has no such
            label.
        EngineStartError: It cannot be loaded, or fails its self-test.
    """
    if config.reads_weights:
        check_weights(config.model)
    config = with_files_here(config)
    with turn_to_start(config):
        if config.engine.method != "auto":
            return _start(config, config.engine.method)
        from rgpt_batch.engines.auto import first_that_works

        methods = ENGINES[config.score.kind]
        return first_that_works([functools.partial(_start, config, each) for each in methods])


def with_files_here(config: JobConfig) -> JobConfig:
    """Name folders of this machine where the model is in an object store; see on_this_machine.

    Raises:
        ConfigError: There is no model, or it has other files than it was pinned to.
        EngineStartError: The files cannot be copied; on another machine they may be.
    """
    is_invented = config.engine.vllm_args.get("load_format") == "dummy"
    has_weights = config.engine.method != "fake" and not is_invented
    try:
        here = on_this_machine(config.model, weights=has_weights)
    except (StorageError, ShardError) as error:
        raise EngineStartError(str(error)) from error
    return config.with_options({"model": here})


def _start(config: JobConfig, method: EngineMethod) -> AnyEngine:
    match method:
        case "query-rows":
            from rgpt_batch.engines.vllm.query_rows.engine import QueryRowsEngine

            return _tested(QueryRowsEngine(config), config)
        case "token-ids":
            from rgpt_batch.engines.vllm.token_ids import TokenIdsEngine

            return _tested(TokenIdsEngine(config), config)
        case "prompt-logprobs":
            from rgpt_batch.engines.vllm.prompt_logprobs import PromptLogprobsEngine

            return _with_same_bits(PromptLogprobsEngine(config), config)
        case "pooling":
            from rgpt_batch.engines.vllm.pooling import PoolingEngine

            return _tested(PoolingEngine(config), config)
        case "encoder-decoder":
            from rgpt_batch.engines.encoder_decoder import EncoderDecoderEngine

            return _with_same_bits(EncoderDecoderEngine(config), config)
        case "transformers":
            from rgpt_batch.engines.references import create_reference

            return create_reference(config)
        case "fake":
            from rgpt_batch.engines.fake import FakeEngine

            return FakeEngine(config.engine.fake_seconds_per_pair, len(config.score.labels))
        case "auto":
            raise AssertionError("auto is no engine")


def _tested(engine: AnyEngine, config: JobConfig) -> AnyEngine:
    """Return the engine if it passes its self-test, else close it and raise."""
    from rgpt_batch.engines.label_self_test import label_self_test
    from rgpt_batch.engines.self_test import self_test
    from rgpt_batch.engines.vllm.arguments import max_num_batched_tokens

    test = self_test if config.score.is_likelihood else label_self_test
    try:
        test(engine, config, max_num_batched_tokens(config))
    except BaseException:
        engine.close()
        raise
    return _with_same_bits(engine, config)


def _with_same_bits(engine: AnyEngine, config: JobConfig) -> AnyEngine:
    """Return the engine if it keeps what engine.deterministic promises, else close it and raise."""
    if config.engine.deterministic:
        from rgpt_batch.engines.same_bits import require_same_bits

        try:
            require_same_bits(engine, config, _SAME_BITS_TOKENS)
        except BaseException:
            engine.close()
            raise
    return engine
