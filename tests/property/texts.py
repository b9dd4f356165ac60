"""Texts as they come in corpora: words, blanks, every script, emoji, control characters."""

from __future__ import annotations

from hypothesis import strategies as st

_PIECES = [
    "walking",
    " the",
    "Query:",
    "Document: ",
    " ",
    "   ",
    "\n",
    "\t",
    "\u00a0",
    "é",
    "e\u0301",
    "ß",
    "ﬁ",  # NFKC makes two characters of it.
    "東京",
    "שלום",
    "مرحبا",
    "👩‍👩‍👧",
    "🏳️‍🌈",
    "\0",
    "\u200b",
    "\ufeff",
    "</s>",
    "[PAD]",
    "▁",
    "1234",
]

# Parquet strings hold any code point but surrogates.
characters = st.characters(exclude_categories=["Cs"])

texts = st.one_of(
    st.lists(st.one_of(st.sampled_from(_PIECES), characters), max_size=40).map("".join),
    st.text(characters, max_size=60),
)
