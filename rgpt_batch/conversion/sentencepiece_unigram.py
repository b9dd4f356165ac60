"""SentencePiece Unigram models as T5 has them (spiece.model) → tokenizer.json.

Where two ways to cut a word have the same score, SentencePiece's depends on how float32 rounds, and
tokenizers', which adds in float64, may be the other one. That happens in runs of one character
(`aaaa`) above all. And tokenizers normalises a character together with what is joined to it, so a
compatibility character (`²`) before a combining one, or two of these behind a letter, may end as
another unknown token. Everything else gets the same ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgpt_batch.conversion.sentencepiece_model import (
    BLANK,
    CONTROL,
    NORMAL,
    UNKNOWN,
    parse_model,
    trial_texts,
)
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Of sentencepiece_model.proto.
_UNIGRAM = 1
# T5's first pieces, whose ids the model knows.
PAD, END, UNK = "<pad>", "</s>", "<unk>"
_FIRST = [(PAD, CONTROL), (END, CONTROL), (UNK, UNKNOWN)]
# Sums of some hundred scores in float32 and in float64.
_SAME_SCORE = 1e-5


def read_unigram(file: Path) -> Any:
    """Read a T5's SentencePiece model, and refuse what the conversion does not know.

    Raises:
        ConfigError: The file is damaged, sentencepiece is not installed, or it is no such model.
    """
    model = parse_model(file)
    trainer, normalizer, pieces = model.trainer_spec, model.normalizer_spec, model.pieces
    problems = {
        "it is no Unigram model": trainer.model_type != _UNIGRAM,
        f"it does not begin with {PAD} {END} {UNK}": (
            [(piece.piece, piece.type) for piece in pieces[:3]] != _FIRST
        ),
        "it has pieces of unknown kinds": any(piece.type != NORMAL for piece in pieces[3:]),
        "it has pieces that go across blanks": any(BLANK in piece.piece[1:] for piece in pieces),
        "it has a piece twice": len({piece.piece for piece in pieces}) != len(pieces),
        "it does not normalise characters": not normalizer.precompiled_charsmap,
        "it keeps repeated blanks": not normalizer.remove_extra_whitespaces,
        "it puts no blank before the first word": not normalizer.add_dummy_prefix,
        "it does not keep blanks": not normalizer.escape_whitespaces,
        "it puts blanks at the end of words": trainer.treat_whitespace_as_suffix,
        "it has byte pieces": trainer.byte_fallback,
    }
    if found := [problem for problem, is_there in problems.items() if is_there]:
        raise ConfigError(
            f"{file}: {found[0]}, which this conversion does not know. It is made for the Unigram "
            "models of T5."
        )
    return model


def convert_unigram(model: Any, num_extra_ids: int, file: Path) -> Tokenizer:
    """Return the tokenizer that gives the same ids, and finds special tokens in texts.

    Args:
        model: See read_unigram.
        num_extra_ids: How many `<extra_id_…>` follow the model's pieces, the last one first.
        file: Where it is from, for messages.

    Raises:
        ConfigError: It does not, on texts made of the model's own pieces.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(
        models.Unigram([(piece.piece, piece.score) for piece in model.pieces], unk_id=2)
    )
    tokenizer.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    # After it has normalised characters, SentencePiece knows one kind of blank.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Metaspace(BLANK, "always")]
    )
    tokenizer.decoder = decoders.Metaspace(BLANK, "always")
    extra = [f"<extra_id_{number}>" for number in reversed(range(num_extra_ids))]
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in (PAD, END, UNK, *extra)]
    )
    _compare(model, tokenizer, file)
    return tokenizer


def _compare(model: Any, tokenizer: Tokenizer, file: Path) -> None:
    """Compare with SentencePiece, up to ways to cut a text that have the same score."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model.SerializeToString())
    texts = list(trial_texts(model))
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        if not equal_cuts(model, processor.encode(text), encoding.ids):
            raise ConfigError(
                f"{file}: SentencePiece gives {text!r} other tokens than a tokenizer.json "
                "can. This model cannot be converted."
            )


def equal_cuts(model: Any, left: Sequence[int], right: Sequence[int]) -> bool:
    """Whether ids are the same, or cut the same text in ways that have the same score."""
    if list(left) == list(right):
        return True
    pieces, number_of = model.pieces, len(model.pieces)
    # Extra ids are found before anything is cut.
    texts = [
        "".join(pieces[each].piece if each < number_of else f" {each} " for each in ids)
        for ids in (left, right)
    ]
    scores = [
        math.fsum(pieces[each].score for each in ids if each < number_of) for ids in (left, right)
    ]
    return texts[0] == texts[1] and math.isclose(*scores, rel_tol=_SAME_SCORE)
