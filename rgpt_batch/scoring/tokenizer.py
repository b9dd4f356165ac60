"""Tokenizers whose ids are those of their tokenizer.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from rgpt_batch.config.options import ModelConfig
from rgpt_batch.config.prompts import ProtocolConfig
from rgpt_batch.errors import ConfigError
from rgpt_batch.scoring import byte_tokens
from rgpt_batch.scoring.model_files import (
    check_converted,
    check_tokenizer,
    on_this_machine,
    tokenizer_settings,
)
from rgpt_batch.scoring.torch_builds import wrong_builds


class LoadedTokenizer(Protocol):
    """What scoring uses of a tokenizer; those of transformers have it."""

    @property
    def backend_tokenizer(self) -> Any:
        """The tokenizers.Tokenizer."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Turn ids back into text, special tokens included."""
        ...


@dataclass(frozen=True, slots=True)
class _FileTokenizer:
    """A tokenizer.json, read without transformers: that and torch take seconds to import."""

    backend_tokenizer: Any
    has_byte_tokens: bool

    def decode(self, token_ids: list[int]) -> str:
        if self.has_byte_tokens:
            return byte_tokens.decode(self.backend_tokenizer, token_ids)
        text: str = self.backend_tokenizer.decode(token_ids, skip_special_tokens=False)
        return text


def load_tokenizer(model: ModelConfig) -> LoadedTokenizer:
    """Load a tokenizer, whose token ids are those of its tokenizer.json.

    transformers 5 takes vocabulary and merges from that file, but normalizer and pre-tokenizer from
    the class that tokenizer_config.json names: LlamaTokenizer loses a blank at the beginning of a
    text, GPT2Tokenizer splits numbers in its own way. So the file is read by itself.

    Raises:
        ConfigError: It cannot be loaded, has no fast implementation, or would give other ids than
            the model was trained with.
        StorageError: The store that it is in cannot be used.
    """
    check_converted(model)
    name, _ = model.tokenizer_source
    here = on_this_machine(model, weights=False)
    try:
        tokenizer = _load(*here.tokenizer_source, trust_remote_code=model.trust_remote_code)
    except ConfigError:
        raise
    except Exception as error:
        # A damaged tokenizer.json comes as a bare Exception from the tokenizers library.
        cause = str(error).rstrip(".")
        advice = " ".join(filter(None, [wrong_builds(), "Check model.name and model.tokenizer."]))
        raise ConfigError(f"cannot load the tokenizer of '{name}': {cause}. {advice}") from error
    # Some files hold what the last training step wanted.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def _load(name: str, revision: str | None, *, trust_remote_code: bool) -> LoadedTokenizer:
    from tokenizers import Tokenizer

    settings = tokenizer_settings(name, revision)
    has_own_code = trust_remote_code and "auto_map" in settings
    if not has_own_code:
        check_tokenizer(name, revision)
    file = None if has_own_code else _tokenizer_file(name, revision)
    if file is None:
        from transformers import AutoTokenizer

        found = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code
        )
        if not found.is_fast:
            raise ConfigError(
                f"the tokenizer of '{name}' has no fast implementation, which truncation needs. "
                "Convert it to a tokenizer.json and set model.tokenizer to that folder."
            )
        return cast("LoadedTokenizer", found)
    if settings.get("clean_up_tokenization_spaces"):
        from transformers import PreTrainedTokenizerFast

        # Decoding then takes blanks away, by rules of transformers' own.
        cleaning = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_file(file), clean_up_tokenization_spaces=True
        )
        return cast("LoadedTokenizer", cleaning)
    backend = Tokenizer.from_file(file)
    return _FileTokenizer(backend, byte_tokens.has_byte_tokens(backend))


def _tokenizer_file(name: str, revision: str | None) -> str | None:
    """Find tokenizer.json in a folder or on the hub; None where there is none."""
    if Path(name).is_dir():
        path = Path(name, "tokenizer.json")
        return str(path) if path.exists() else None
    from transformers.utils import cached_file

    found: str | None = cached_file(
        name, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False
    )
    return found


def decode_rule(protocol: ProtocolConfig, model: ModelConfig) -> dict[str, str]:
    """Say for a job's identity how cut ids become text, where 0.1.0 did otherwise.

    Raises:
        ConfigError: See load_tokenizer.
    """
    if not protocol.name.startswith("eval"):
        return {}
    tokenizer = load_tokenizer(model)
    by_bytes = isinstance(tokenizer, _FileTokenizer) and tokenizer.has_byte_tokens
    return {"protocol.decode": "as SentencePiece"} if by_bytes else {}


def check_special_tokens(tokenizer: LoadedTokenizer, model: ModelConfig) -> None:
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
