"""Tokenizers whose ids are those of their tokenizer.json."""

from __future__ import annotations

from typing import Any

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring.model_files import check_converted, check_tokenizer, tokenizer_settings
from rgpt_batch.scoring.torch_builds import wrong_builds


def load_tokenizer(model: ModelConfig) -> Any:
    """Load a fast transformers tokenizer, whose token ids are those of its tokenizer.json.

    transformers 5 takes vocabulary and merges from that file, but normalizer and pre-tokenizer from
    the class that tokenizer_config.json names: LlamaTokenizer loses a blank at the beginning of a
    text, GPT2Tokenizer splits numbers in its own way. So the file is read by itself.

    Raises:
        ConfigError: It cannot be loaded, has no fast implementation, or would give other ids than
            the model was trained with.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import cached_file

    check_converted(model)
    name, revision = model.tokenizer_source
    try:
        settings = tokenizer_settings(name, revision)
        has_own_code = model.trust_remote_code and "auto_map" in settings
        if not has_own_code:
            check_tokenizer(name, revision)
        file = cached_file(
            name,
            "tokenizer.json",
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
        )
        if file is None or has_own_code:
            tokenizer = AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=model.trust_remote_code
            )
        else:
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=Tokenizer.from_file(file),
                clean_up_tokenization_spaces=settings.get("clean_up_tokenization_spaces", False),
            )
    except ConfigError:
        raise
    except Exception as error:
        # A damaged tokenizer.json comes as a bare Exception from the tokenizers library.
        cause = str(error).rstrip(".")
        advice = " ".join(filter(None, [wrong_builds(), "Check model.name and model.tokenizer."]))
        raise ConfigError(f"cannot load the tokenizer of '{name}': {cause}. {advice}") from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"the tokenizer of '{name}' has no fast implementation, which truncation needs. "
            "Convert it to a tokenizer.json and set model.tokenizer to that folder."
        )
    # Some files hold what the last training step wanted.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def check_special_tokens(tokenizer: Any, model: ModelConfig) -> None:
    """Raise ConfigError where tokenizer_config.json asks for other special tokens than are added.

    Which of the two a tool obeys depends on its version, so neither can be the right one silently.
    """
    settings = tokenizer_settings(*model.tokenizer_source)
    backend = tokenizer.backend_tokenizer
    plain = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a").ids
    num_before = full.index(plain[0]) if plain else 0
    adds = {"bos": num_before > 0, "eos": len(full) > num_before + len(plain)}
    for token, is_added in adds.items():
        wanted = settings.get(f"add_{token}_token")
        if wanted is not None and bool(wanted) != is_added:
            raise ConfigError(
                f"the tokenizer of '{model.tokenizer_source[0]}': tokenizer_config.json says "
                f"add_{token}_token: {str(wanted).lower()}, but the post_processor of "
                f"tokenizer.json {'adds such a token' if is_added else 'adds none'}. Protocols "
                "eval and eval-arguana need to know: correct one of the files."
            )
