"""The first Qwen's qwen.tiktoken → tokenizer.json.

The file has a line for each token: base64 of its bytes, a blank, its rank, which is its id too.
208 special tokens follow.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from rgpt_batch.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (
    *(END_OF_TEXT, "<|im_start|>", "<|im_end|>"),
    *(f"<|extra_{number}|>" for number in range(205)),
)
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _read_ranks(file: Path) -> dict[bytes, int]:
    """Return the rank of each token."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise ConfigError(f"{file}: line {number} is no token and rank ({error}).") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(
        bytes([byte]) in ranks for byte in range(256)
    ):
        raise ConfigError(f"{file}: ranks or single bytes are missing. Download it again.")
    return ranks


def convert_ranks(file: Path) -> Tokenizer:
    """Return the tokenizer that gives the same ids.

    Special tokens in texts count as such, as they do in Qwen's own tokenizer.

    Raises:
        ConfigError: The file is damaged, or holds tokens that no merges lead to.
    """
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )

    ranks = _read_ranks(file)
    letters = _byte_letters()

    def text(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda entry: entry[1]):
        parts = _merged(token, rank, ranks)
        if len(parts) > 2:
            raise ConfigError(f"{file}: the token of rank {rank} is no merge of two lower ones.")
        if len(parts) == 2:
            merges.append((text(parts[0]), text(parts[1])))
    tokenizer = Tokenizer(
        models.BPE(vocab={text(token): rank for token, rank in ranks.items()}, merges=merges)
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Qwen's tokenizer composes characters first, and looks for special tokens then.
    tokenizer.add_special_tokens([AddedToken(token, normalized=True) for token in SPECIAL_TOKENS])
    return tokenizer


def _merged(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Merge a token's bytes, lowest rank first, as far as the ranks below its own go."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        candidates = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
        best = min(candidates)
        if best >= rank:
            break
        place = candidates.index(best)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _byte_letters() -> dict[int, str]:
    """The printable letter that byte-level BPE writes for each byte.

    Source: GPT-2. Bytes that are printable in Latin-1 stand for themselves, the others get the
    letters from 256 on, in their order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + number) for number, byte in enumerate(others)
    }
