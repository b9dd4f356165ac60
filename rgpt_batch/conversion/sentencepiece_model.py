"""SentencePiece's files, and texts on which a conversion is compared with SentencePiece itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rgpt_batch.errors import ConfigError

BLANK = "▁"
# Kinds of pieces, of sentencepiece_model.proto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_MAX_RUN = 120
_NUM_JOINED_TEXTS = 20_000


def parse_model(file: Path) -> Any:
    """Read a SentencePiece model of any kind.

    Raises:
        ConfigError: The file is damaged, or sentencepiece is not installed.
    """
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise ConfigError(
            f'Converting a {file.name} needs sentencepiece: pip install "rgpt-batch[convert]"'
        ) from error
    model: Any = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ConfigError(f"{file}: is damaged or no SentencePiece model ({error}).") from error
    return model


def trial_texts(model: Any) -> Iterator[str]:
    """Yield texts made of a model's pieces: each one, runs of one character, random sequences."""
    pieces = [
        piece.piece.replace(BLANK, " ")
        for piece in model.pieces
        if piece.type in (NORMAL, USER_DEFINED)
    ]
    yield from pieces
    for character in {piece[0] for piece in pieces if len(piece) > 1 and len(set(piece)) == 1}:
        yield from (character * length for length in range(1, _MAX_RUN + 1))
    chosen = random.Random(0)
    for _ in range(_NUM_JOINED_TEXTS):
        yield "".join(chosen.choices(pieces, k=chosen.randint(2, 6)))
