"""Strings that tell tokenizers apart: real text, and what real text has in odd places."""

from __future__ import annotations

import functools
import random

from tests.models import demo_texts

_PIECES = (
    *(" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2581", "\u2581\u2581"),
    *("\x00", "\x7f", "\ufffd", "\ufeff", "\u200d", "\u200b", "0", "12", "1,234.5", "٣", "²", "Ⅻ"),
    *("é", "e\u0301", "ﬁ", "ÅÅ", "한국어", "ไทย", "中文字", "日本", "हिन्दी", "שלום"),
    *("\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\U0001f642"),
    *("don't", "I'LL", "'s", "'S", "...", "==", "<b>", "</p>", "&amp;", "_", "-", "/?q=1"),
    *("<reserved_0>", "<reserved_3>", "<0x41>", "[PAD]", "<pad>"),
    *("a", "The", "the", "walk", "Query:", "https://example.org"),
)


@functools.cache
def varied_texts(count: int, specials: tuple[str, ...] = ()) -> list[str]:
    """Return distinct strings; some hold special tokens, never before a combining character."""
    chosen = random.Random(0)
    real = [text for text in demo_texts() if text]
    texts = {" ", "  ", "", "\n", *(character * n for character in " =a\n" for n in range(1, 121))}
    while len(texts) < count:
        parts = []
        for _ in range(chosen.randint(1, 8)):
            kind = chosen.random()
            if kind < 0.25:
                text = chosen.choice(real)
                start = chosen.randrange(len(text))
                parts.append(text[start : start + chosen.randint(1, 80)])
            elif kind < 0.3:
                parts.append(chosen.choice(" =a-\n\u2581") * chosen.randint(1, 40))
            elif kind < 0.35 and specials:
                parts.append(chosen.choice(specials) + chosen.choice(("", " ", "x", "\n", ".")))
            elif kind < 0.5:
                parts.append("".join(_any_character(chosen) for _ in range(chosen.randint(1, 6))))
            else:
                parts.append(chosen.choice(_PIECES))
        text = "".join(parts)
        if not any(f"{special}\u0301" in text for special in specials):
            texts.add(text)
    return sorted(texts)


def _any_character(chosen: random.Random) -> str:
    while True:
        code = chosen.randrange(chosen.choice((0x250, 0x3000, 0x110000)))
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)
