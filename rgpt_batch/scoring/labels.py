"""Labels that are tokens of a vocabulary."""

from __future__ import annotations

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.config.prompts import ScoreConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.tokenizer import load_tokenizer


def label_ids(model: ModelConfig, score: ScoreConfig) -> list[int]:
    """Return the token ids of score.labels.

    Raises:
        ConfigError: The tokenizer cannot be loaded, or a label is not one of its tokens.
    """
    backend = load_tokenizer(model).backend_tokenizer
    ids = []
    for label in score.labels:
        token_id = backend.token_to_id(str(label))
        if token_id is None:
            raise ConfigError(
                f"score: label '{label}' is no token of '{model.tokenizer_source[0]}'. Name it as "
                "tokenizer.json does, for example '▁true' or 'yes'."
            )
        ids.append(int(token_id))
    return ids
