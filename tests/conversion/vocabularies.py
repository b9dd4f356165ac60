"""Small tokenizer files in the published formats, trained on the spot."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from tests.models import demo_texts

BAICHUAN_TOKENIZER: dict[str, Any] = {
    "add_bos_token": False,
    "add_eos_token": False,
    "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]},
    "bos_token": {"__type": "AddedToken", "content": "<s>", "normalized": True},
    "clean_up_tokenization_spaces": False,
    "eos_token": {"__type": "AddedToken", "content": "</s>", "normalized": True},
    "model_max_length": 4096,
    "pad_token": {"__type": "AddedToken", "content": "<unk>", "normalized": True},
    "sp_model_kwargs": {},
    "tokenizer_class": "BaichuanTokenizer",
    "unk_token": {"__type": "AddedToken", "content": "<unk>", "normalized": True},
    "use_fast": False,
}
LLAMA_TOKENIZER: dict[str, Any] = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "</s>",
    "model_max_length": 4096,
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}
BLANKS = (2, 4, 8, 5, 16, 6, 12, 13, 10, 14, 3, 9, 7, 11, 15)
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPECIALS = ("<unk>", "<s>", "</s>")
QWEN_SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|extra_{number}|>" for number in range(205)),
)
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def save_baichuan_model(file: Path, *, vocab_size: int) -> Path:
    """Train a model with Baichuan's traits: no dummy prefix, digits apart, reserved tokens."""
    _train(
        file,
        vocab_size=vocab_size,
        add_dummy_prefix=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        max_sentencepiece_length=32,
        user_defined_symbols=[*(f"<reserved_{number}>" for number in range(4)), "▁▁▁▁"],
    )
    return file


def save_llama_model(file: Path, *, vocab_size: int) -> Path:
    """Train a model with Llama-2's traits: a dummy prefix, runs of blanks with the worst score."""
    _train(
        file,
        vocab_size=vocab_size - len(BLANKS),
        add_dummy_prefix=True,
        split_digits=True,
        allow_whitespace_only_pieces=False,
    )
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(file.read_bytes())
    # Llama-2's order, and low ids as there.
    place = max(i for i, piece in enumerate(model.pieces) if piece.type == piece.BYTE) + 1
    for length in reversed(BLANKS):
        model.pieces.insert(place, model.SentencePiece(piece="▁" * length, score=-1e9))
    for piece in model.pieces:
        if piece.piece == "▁":
            piece.score = -1e9
    file.write_bytes(model.SerializeToString())
    return file


def save_t5_model(file: Path, *, vocab_size: int) -> Path:
    """Train a Unigram model with T5's traits: NFKC, one blank between words, T5's first pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=demo_texts(),
        model_prefix=str(file.with_suffix("")),
        model_type="unigram",
        vocab_size=vocab_size,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    file.with_suffix(".vocab").unlink()
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(file.read_bytes())
    # monoT5's labels, for the two that matter least.
    names = {piece.piece for piece in model.pieces}
    rarest = sorted(
        (piece for piece in model.pieces if len(piece.piece) > 1), key=lambda piece: piece.score
    )
    for piece, label in zip(rarest, {"▁true", "▁false"} - names, strict=False):
        piece.piece = label
    file.write_bytes(model.SerializeToString())
    return file


def save_word_pieces(file: Path, *, vocab_size: int) -> Path:
    """Train BERT's vocabulary on the demo's text, filled up with unused pieces."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(
        demo_texts(),
        vocab_size=vocab_size - 100,
        special_tokens=list(BERT_SPECIALS),
        show_progress=False,
    )
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    pieces += [f"[unused{number}]" for number in range(vocab_size - len(pieces))]
    file.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return file


def _train(file: Path, **options: Any) -> None:
    texts = [*demo_texts(), "一个小例子。如何学习走路。", "    if x:\n        y = 1" * 3]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(file.with_suffix("")),
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.9999,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    file.with_suffix(".vocab").unlink()


def save_tiktoken(file: Path, *, num_merges: int) -> Path:
    """Train byte-level merges on the demo's words, and write them as Qwen's file has them."""
    words: Counter[bytes] = Counter()
    for text in demo_texts():
        words.update(word.encode() for word in re.findall(r" ?[^\s\d]+|\d| +", text))
    words = Counter(dict(words.most_common(1000)))
    split = {word: [bytes([byte]) for byte in word] for word in words}
    tokens = [bytes([byte]) for byte in range(256)]
    for _ in range(num_merges):
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        if left + right not in tokens:
            tokens.append(left + right)
        for parts in split.values():
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == (left, right):
                    parts[place : place + 2] = [left + right]
                place += 1
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]
    file.write_text("\n".join(lines) + "\n")
    return file


def read_tiktoken(file: Path) -> dict[bytes, int]:
    lines = [line.split() for line in file.read_text().splitlines()]
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content))
