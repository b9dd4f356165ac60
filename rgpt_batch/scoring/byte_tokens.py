"""Turning ids back into text where a character may be several tokens of one byte each.

A list of ids that is cut may end inside such a character. For `▁`, `<0xE6>`, `<0x9D>` SentencePiece
gives a blank and one U+FFFD for each byte that is left over. The tokenizers library does so for all
bytes that stand together, whole characters before the cut included.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def has_byte_tokens(backend: Any) -> bool:
    """Whether a tokenizers.Tokenizer has a token for each byte, and joins them when it decodes."""
    decoder = json.loads(backend.to_str()).get("decoder") or {}
    steps = decoder.get("decoders", [decoder])
    return any(step.get("type") == "ByteFallback" for step in steps)


def decode(backend: Any, token_ids: Iterable[int]) -> str:
    """Decode ids as SentencePiece does, special tokens included.

    Args:
        backend: A tokenizers.Tokenizer that has byte tokens.
        token_ids: Of its vocabulary.

    Source: github.com/google/sentencepiece, sentencepiece_processor.cc, Decode.
    """
    tokens = [backend.id_to_token(token_id) for token_id in token_ids]
    text: str = backend.decoder.decode(list(_without_broken_runs(tokens)))
    return text


def _without_broken_runs(tokens: Iterable[str]) -> Iterator[str]:
    """Put characters in the place of bytes that stand together and are not all whole characters."""
    for is_bytes, run in itertools.groupby(tokens, lambda token: bool(_BYTE.fullmatch(token))):
        together = list(run)
        if not is_bytes:
            yield from together
            continue
        content = bytes(int(token[3:5], 16) for token in together)
        try:
            content.decode()
        except UnicodeDecodeError:
            yield from _characters(content)
        else:
            yield from together


def _characters(content: bytes) -> Iterator[str]:
    start = 0
    while start < len(content):
        for length in (1, 2, 3, 4):
            try:
                yield content[start : start + length].decode()
            except UnicodeDecodeError:
                continue
            start += length
            break
        else:
            yield "\ufffd"
            start += 1
