"""The configured protocol, with its tokenizer."""

from __future__ import annotations

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.config.prompts import ProtocolConfig
from rgpt_batch.scoring.base import ScoringProtocol
from rgpt_batch.scoring.likelihood import CardProtocol, EvalProtocol
from rgpt_batch.scoring.prompts import PromptProtocol
from rgpt_batch.scoring.tokenizer import check_special_tokens, load_tokenizer


def load_protocol(config: ProtocolConfig, model: ModelConfig) -> ScoringProtocol:
    """Load the tokenizer and build the configured protocol.

    Raises:
        ConfigError: The tokenizer cannot be loaded or has no fast implementation; or its files do
            not agree on what `eval` puts around a prompt; or it lacks a token of the prompt.
    """
    tokenizer = load_tokenizer(model)
    if config.name == "prompt":
        return PromptProtocol(tokenizer, config)
    if config.name == "card":
        return CardProtocol(tokenizer, config.template, config.max_tokens)
    check_special_tokens(tokenizer, model)
    return EvalProtocol(
        tokenizer, config.template, config.max_tokens, arguana=config.name == "eval-arguana"
    )
