"""SentencePiece BPE models (Llama-2's, Baichuan's tokenizer.model) → tokenizer.json.

Merges are ordered by the pieces' scores, as SentencePiece does it. Ordering them by id, as others
do, gives wrong tokens for runs of blanks: Llama-2's pieces of blanks have the lowest scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rgpt_batch.conversion.sentencepiece_model import (
    BLANK,
    BYTE,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    parse_model,
    trial_texts,
)
from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Of sentencepiece_model.proto.
_BPE = 2


def read_model(file: Path) -> Any:
    """Read a SentencePiece model, and refuse what the conversion does not know.

    Raises:
        ConfigError: The file is damaged, sentencepiece is not installed, or it is no such model.
    """
    model = parse_model(file)
    _check(file, model)
    return model


def _check(file: Path, model: Any) -> None:
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    types = [piece.type for piece in model.pieces]
    problems = {
        "it has no pieces": not types,
        "it is no BPE model": trainer.model_type != _BPE,
        "it has no unknown piece, or several": types.count(UNKNOWN) != 1,
        "it has unused pieces": UNUSED in types,
        "it normalises characters": bool(normalizer.precompiled_charsmap),
        "it removes repeated blanks": normalizer.remove_extra_whitespaces,
        "it does not keep blanks": not normalizer.escape_whitespaces,
        "it puts blanks at the end of words": trainer.treat_whitespace_as_suffix,
        "it lacks byte pieces": trainer.byte_fallback and types.count(BYTE) != 256,
        "it has a piece twice": len({piece.piece for piece in model.pieces}) != len(types),
    }
    if found := [problem for problem, is_there in problems.items() if is_there]:
        raise ConfigError(
            f"{file}: {found[0]}, which this conversion does not know. It is made for the BPE "
            "models of Llama-2 and Baichuan."
        )


def convert_model(model: Any, file: Path) -> Tokenizer:
    """Return the tokenizer that gives the same ids, special tokens aside.

    Args:
        model: See read_model.
        file: Where it is from, for messages.

    Raises:
        ConfigError: It does not, on texts made of the model's own pieces.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    unknown = next(piece.piece for piece in model.pieces if piece.type == UNKNOWN)
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece.piece: number for number, piece in enumerate(model.pieces)},
            merges=list(_merges(model)),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    has_prefix = model.normalizer_spec.add_dummy_prefix
    blanks = normalizers.Replace(" ", BLANK)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(BLANK), blanks]) if has_prefix else blanks
    )
    parts = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if has_prefix:
        parts.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(parts)
    # SentencePiece looks for these after it has replaced blanks.
    tokenizer.add_tokens(
        [
            AddedToken(piece.piece, normalized=True, special=False)
            for piece in model.pieces
            if piece.type == USER_DEFINED
        ]
    )
    _compare(model, tokenizer, file)
    return tokenizer


def _compare(model: Any, tokenizer: Tokenizer, file: Path) -> None:
    """Compare with SentencePiece. Pieces of one score need not merge in the order of any list."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=model.SerializeToString())
    texts = list(trial_texts(model))
    for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
        if encoding.ids != processor.encode(text):
            raise ConfigError(
                f"{file}: SentencePiece gives {text!r} other tokens than a tokenizer.json "
                "can. This model cannot be converted."
            )


def _merges(model: Any) -> Iterator[tuple[str, str]]:
    """Every way to put a piece together from two others; the best score comes first."""
    normal = {piece.piece for piece in model.pieces if piece.type == NORMAL}
    ordered = sorted(
        (piece for piece in model.pieces if piece.type == NORMAL), key=lambda piece: -piece.score
    )
    for piece in ordered:
        text = piece.piece
        for cut in range(1, len(text)):
            if text[:cut] in normal and text[cut:] in normal:
                yield text[:cut], text[cut:]
