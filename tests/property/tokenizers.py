"""Small tokenizers of the kinds that models come with, trained on the demo's text."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tests.models import demo_texts

KINDS = ("byte-level", "byte-level-trimmed", "llama", "unigram", "wordpiece")

_VOCAB_SIZE = 600
_SPECIAL = ["<unk>", "<s>", "</s>"]


def small_tokenizer(kind: str) -> Any:
    """Train one of KINDS.

    byte-level: GPT-2, Bloom and Llama 3; `trimmed` leaves leading blanks out of the offsets.
    llama: Llama 2; blanks become ▁, one is put in front, unknown characters become bytes.
    unigram: XLNet and T5; NFKC changes characters before they are counted.
    wordpiece: BERT; lower case, accents and control characters vanish.
    """
    tokenizer = {
        "byte-level": lambda: _byte_level(trim_offsets=False),
        "byte-level-trimmed": lambda: _byte_level(trim_offsets=True),
        "llama": _llama,
        "unigram": _unigram,
        "wordpiece": _wordpiece,
    }[kind]()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def _byte_level(*, trim_offsets: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    _train(tokenizer, trainers.BpeTrainer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def _llama() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    blanks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(blanks)
    # While training alone: without word boundaries, BPE would learn whole sentences.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    _train(tokenizer, trainers.BpeTrainer, extra=bytes_)
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    _train(tokenizer, trainers.UnigramTrainer, unk_token="<unk>")
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _train(tokenizer, trainers.WordPieceTrainer)
    return tokenizer


def _train(
    tokenizer: Tokenizer, trainer: Any, extra: list[str] | None = None, **settings: Any
) -> None:
    tokenizer.train_from_iterator(
        demo_texts(),
        trainer(
            vocab_size=_VOCAB_SIZE,
            special_tokens=_SPECIAL + (extra or []),
            show_progress=False,
            **settings,
        ),
    )
