"""The tokenizer of a converted folder: made new from what the source has, or copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgpt_batch.conversion.sentencepiece_bpe import convert_model, read_model
from rgpt_batch.conversion.settings import Settings
from rgpt_batch.conversion.target import write_json
from rgpt_batch.conversion.tiktoken_bpe import END_OF_TEXT, convert_ranks
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCEPIECE = "tokenizer.model"
SPIECE = "spiece.model"
TIKTOKEN = "qwen.tiktoken"
TOKENIZER_JSON = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIALS, ADDED = "special_tokens_map.json", "added_tokens.json"
TOKENIZER_FILES = frozenset(
    {
        *(SENTENCEPIECE, SPIECE, TIKTOKEN, TOKENIZER_JSON, CONFIG, SPECIALS, ADDED),
        *("vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja"),
    }
)

# What LlamaTokenizer and BaichuanTokenizer do where tokenizer_config.json does not say otherwise.
_KNOWN_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast", "BaichuanTokenizer")
_DEFAULT_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": None}
_ADDS_BOS, _ADDS_EOS = True, False


@dataclass(frozen=True, slots=True)
class NewTokenizer:
    """Files to write, and the source's files that they replace."""

    tokenizer: Tokenizer | None
    config: Mapping[str, Any]
    rule: str
    replaced: frozenset[str] = field(default=frozenset({CONFIG}))

    @property
    def num_ids(self) -> int:
        """Ids that texts can get; 0 where the tokenizer stays as it is."""
        return self.tokenizer.get_vocab_size() if self.tokenizer is not None else 0

    def write(self, folder: Path) -> None:
        """Write tokenizer.json, if there is a new one, and tokenizer_config.json."""
        if self.tokenizer is not None:
            self.tokenizer.save(str(folder / TOKENIZER_JSON))
        write_json(folder / CONFIG, dict(self.config))


def from_sentencepiece(folder: Path) -> NewTokenizer:
    """Make a tokenizer.json from a tokenizer.model; tokenizer_config.json decides about BOS.

    Raises:
        ConfigError: A file is missing, damaged or of an unknown kind, or two contradict each other.
    """
    file = folder / SENTENCEPIECE
    if not file.is_file():
        raise ConfigError(f"{folder}: holds no {SENTENCEPIECE}. Download it.")
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder}: holds no {CONFIG}, which says whether texts begin with a BOS token. "
            "Download it."
        )
    config = Settings(folder / CONFIG)
    if config.get("tokenizer_class") not in _KNOWN_CLASSES:
        raise ConfigError(
            f"{config.file}: 'tokenizer_class' is {config.get('tokenizer_class')!r}, expected one "
            f"of {', '.join(_KNOWN_CLASSES)}."
        )
    config.require("sp_model_kwargs", {})
    tokenizer = convert_model(read_model(file), file)
    named = _named_tokens(folder, config)
    _add_tokens(folder, tokenizer, config, named)
    adds_bos = config.get("add_bos_token", _ADDS_BOS)
    adds_eos = config.get("add_eos_token", _ADDS_EOS)
    set_template(
        tokenizer,
        bos=named["bos_token"] if adds_bos else None,
        eos=named["eos_token"] if adds_eos else None,
    )
    return NewTokenizer(
        tokenizer,
        {
            # LlamaTokenizer would make blanks of its own.
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{name: token for name, token in named.items() if token is not None},
            "clean_up_tokenization_spaces": False,
            **max_length(config),
        },
        f"{SENTENCEPIECE} to {TOKENIZER_JSON}: merges ordered by score; "
        f"BOS {'added' if adds_bos else 'not added'}, EOS {'added' if adds_eos else 'not added'}",
        frozenset({SENTENCEPIECE, TOKENIZER_JSON, CONFIG, SPECIALS, ADDED}),
    )


def from_tiktoken(folder: Path) -> NewTokenizer:
    """Make a tokenizer.json from a qwen.tiktoken.

    Raises:
        ConfigError: The file is missing, damaged or of an unknown kind.
    """
    file = folder / TIKTOKEN
    if not file.is_file():
        raise ConfigError(f"{folder}: holds no {TIKTOKEN}. Download it.")
    return NewTokenizer(
        convert_ranks(file),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            **(max_length(Settings(folder / CONFIG)) if (folder / CONFIG).is_file() else {}),
        },
        f"{TIKTOKEN} to {TOKENIZER_JSON}: texts composed (NFC), special tokens matched in texts",
        frozenset({TIKTOKEN, TOKENIZER_JSON, CONFIG, SPECIALS, ADDED}),
    )


def bert_tokenizer(folder: Path) -> NewTokenizer:
    """Name BERT's class in tokenizer_config.json; vocab.txt stays.

    Raises:
        ConfigError: vocab.txt is missing.
    """
    if not (folder / "vocab.txt").is_file():
        raise ConfigError(f"{folder}: holds no vocab.txt. Download it.")
    file = folder / CONFIG
    config = dict(Settings(file).values) if file.is_file() else {}
    return NewTokenizer(
        None,
        {"tokenizer_class": "BertTokenizer", **config},
        f"tokenizer_class in {CONFIG}",
    )


def _named_tokens(folder: Path, config: Settings) -> dict[str, str | None]:
    """Return bos, eos, unk and pad; the two files that may name them have to agree."""
    named = {
        name: _content(config.values[name]) if name in config.values else default
        for name, default in _DEFAULT_TOKENS.items()
    }
    if (folder / SPECIALS).is_file():
        specials = Settings(folder / SPECIALS)
        for name in named:
            if name not in specials:
                continue
            token = _content(specials.get(name))
            if name in config and token != named[name]:
                raise ConfigError(
                    f"{specials.file}: {name} is '{token}', but {CONFIG} says '{named[name]}'. One "
                    "of them is wrong, and scores would depend on which."
                )
            named[name] = token
    return named


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _add_tokens(
    folder: Path, tokenizer: Tokenizer, config: Settings, named: Mapping[str, str | None]
) -> None:
    """Add the tokens that are matched in texts before anything else, and those beyond the model."""
    from tokenizers import AddedToken

    user_defined = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    wanted: dict[str, dict[str, Any]] = {
        token: {"special": True} for token in named.values() if token is not None
    }
    for token, settings in described_tokens(folder, config):
        wanted[token] = wanted.get(token, {}) | settings
    for token, settings in sorted(wanted.items(), key=lambda entry: entry[1].get("id", -1)):
        number = settings.get("id", tokenizer.token_to_id(token))
        if number is None:
            raise ConfigError(
                f"{config.file}: names the token '{token}', which neither {SENTENCEPIECE} nor "
                f"{ADDED} has. Take these files as they were published."
            )
        if token in user_defined:
            continue
        flags = ("lstrip", "rstrip", "single_word")
        # The published tokenizers look for them in the text as it is.
        added = AddedToken(
            token, normalized=False, **{flag: bool(settings.get(flag)) for flag in flags}
        )
        if token in named.values() or settings.get("special"):
            tokenizer.add_special_tokens([added])
        else:
            tokenizer.add_tokens([added])
        if tokenizer.token_to_id(token) != number:
            raise ConfigError(
                f"{folder}: the token '{token}' should have id {number}, but gets "
                f"{tokenizer.token_to_id(token)} after those of {SENTENCEPIECE}. The files do not "
                "belong together."
            )


def described_tokens(folder: Path, config: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the added tokens that the files describe, with id and flags."""
    if (folder / ADDED).is_file():
        added = Settings(folder / ADDED)
        for token in added.values:
            yield token, {"id": added.integer(token)}
    decoder = config.get("added_tokens_decoder", {})
    try:
        listed = [(int(number), dict(settings)) for number, settings in decoder.items()]
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{config.file}: 'added_tokens_decoder' lists no tokens.") from error
    for number, settings in listed:
        yield str(_content(settings)), {**settings, "id": number}
    for name in _DEFAULT_TOKENS:
        settings = config.get(name)
        if isinstance(settings, dict):
            yield str(_content(settings)), settings
    for token in config.get("additional_special_tokens", []):
        yield str(_content(token)), {"special": True}


def set_template(tokenizer: Tokenizer, *, bos: str | None, eos: str | None) -> None:
    """Say which tokens are added around a text, and around each of two."""
    from tokenizers import processors

    if bos is None and eos is None:
        return
    added = [token for token in dict.fromkeys((bos, eos)) if token]
    around = {"before": f"{bos} " if bos else "", "after": f" {eos}" if eos else ""}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="{before}$A{after}".format(**around),
        pair="{before}$A{after} {before}$B{after}".format(**around),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in added],
    )


def max_length(config: Settings) -> dict[str, int]:
    """Return the setting model_max_length, if there is one."""
    value = config.get("model_max_length")
    return {"model_max_length": value} if isinstance(value, int) else {}
