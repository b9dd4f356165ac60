"""Pairs of query and document for the golden tests: ordinary ones, and whatever may go wrong."""

from __future__ import annotations

import json

from tests.models import DEMO

Pair = tuple[str, str]

# From the usage example on the model cards of RankingGPT.
MODEL_CARD_PAIR: Pair = (
    "when should a baby walk",
    "Most babies start to walk around 13 months, but your baby may start walking as early as "
    "9 or 10 months or as late as 15 or 16 months.",
)

ODD_TEXTS = (
    "a",
    "7",
    "?",
    ".",
    ":)",
    " walk",
    "walk ",
    "  two  blanks  ",
    "\tTab\r\nand line\n\nbreaks",
    "\0",
    "nul \0 inside",
    "\x1b[31mescape",
    "🎉",
    "👩‍👩‍👧‍👦 and 🏳️‍🌈",
    "שלום עולם",
    "مرحبا \u202eمعكوس\u202c",
    "日本語のテキスト",
    "ซับซ้อน",
    "e\u0301 is not \u00e9",
    "\ufeffbyte order mark",
    "\ufffd replaced",
    "\U0010ffff last code point",
    "{document} {query} {doc} %s {0}",
    "Document: inner Query: inner",
    "<s> and </s>",
    "[PAD] [UNK] [MASK]",
    "<|im_start|>user<|im_end|>",
    "x" * 300,
    "0123456789" * 20,
)


def demo_pairs() -> list[Pair]:
    """All pairs of the demo."""
    records = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    return [
        (record["query"], candidate["document"])
        for record in records
        for candidate in record["candidates"]
    ]


def odd_pairs() -> list[Pair]:
    """Odd documents under an ordinary query and the other way round; empty documents; repeats."""
    query, document = MODEL_CARD_PAIR
    return [
        MODEL_CARD_PAIR,
        (query, ""),
        (query, " "),
        ("a", ""),
        ("\0", ""),
        *((query, odd) for odd in ODD_TEXTS),
        *((odd, document) for odd in ODD_TEXTS),
        *((odd, odd) for odd in ODD_TEXTS[:8]),
        MODEL_CARD_PAIR,
        MODEL_CARD_PAIR,
    ]


def long_pairs() -> list[Pair]:
    """Documents and queries of several hundred tokens."""
    words = _words()
    query = MODEL_CARD_PAIR[0]
    return [
        (query, " ".join(words[:320])),
        (query, " ".join(words[100:400])),
        ("a", " ".join(words[200:450])),
        # The query itself crosses prefill chunks, with a long, a short and an empty document.
        (" ".join(words[:100]), " ".join(words[300:420])),
        (" ".join(words[:100]), "short"),
        (" ".join(words[100:190]), ""),
    ]


def overlong_pairs() -> list[Pair]:
    """Documents and queries that the protocols of eval.py cut."""
    words = _words()
    query = MODEL_CARD_PAIR[0]
    return [
        (query, " ".join(words[:600])),
        (query, "\n\n".join(words[100:900])),
        (" ".join(words[50:150]), " ".join(words[:500])),
        (query + " [PAD]", "[PAD] " + " ".join(words[300:800])),
        # Cut inside a character of several tokens.
        (query, "🎉" * 400),
        ("a", "🎉" * 401),
    ]


def growing_pairs(num_pairs: int, step: int) -> list[Pair]:
    """One text cut after 0, step, 2 step … words: prompts that end all around a chunk's end."""
    words = _words()
    queries = [query for query, _ in demo_pairs()]
    return [(queries[index], " ".join(words[: index * step])) for index in range(num_pairs)]


def varied_pairs() -> list[Pair]:
    """At least 200 pairs of all kinds."""
    demo = demo_pairs()
    return [*odd_pairs(), *long_pairs(), *growing_pairs(90, 2), *demo[::4], *demo[:8:4]]


def short_varied_pairs() -> list[Pair]:
    """At least 200 pairs of all kinds, for a model of ordinary size: most are short."""
    shortest = sorted(demo_pairs(), key=lambda pair: len(pair[1]))
    return [*odd_pairs(), *long_pairs()[::2], *growing_pairs(70, 1), *shortest[:60]]


def _words() -> list[str]:
    return " ".join(document for _, document in demo_pairs()).split(" ")
