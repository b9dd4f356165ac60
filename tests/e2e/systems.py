"""One small random model of every architecture that configs/ names, and what its scores must be.

Folders are as published. What is expected comes from the published files and the texts alone:
from float32 code written for it (tests/conversion/references.py) where the layout is converted,
else from transformers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conversion.checkpoints import (
    ADAPTER,
    BAICHUAN,
    BERT,
    FLAN_T5,
    LLAMA,
    QWEN,
    T5,
    baichuan_tensors,
)
from tests.conversion.published import (
    save_baichuan,
    save_llama,
    save_monobert,
    save_qwen,
    save_rankllama,
    save_t5,
)
from tests.conversion.references import (
    baichuan_logits,
    bert_logits,
    query_likelihood,
    qwen_logits,
    rankllama_logit,
    t5_logits,
)
from tests.conversion.vocabularies import QWEN_PATTERN, read_tiktoken
from tests.models import demo_texts, save_tiny_bloom

# Logits of a pair's labels, not relevant first; or the mean log-probability of the query's tokens.
Judge = Callable[[str, str], Sequence[float]]
Encode = Callable[[str], list[int]]

_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_QWEN3 = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n",
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
_MXBAI = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\n",
    "You are a search relevance expert who evaluates how well documents match search queries. For "
    "each query-document pair, carefully analyze the semantic relationship between them, then "
    "provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
    "<|im_end|>\n<|im_start|>assistant\n",
)
_BGE_GEMMA = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A model as it is downloaded.

    Attributes:
        folder: Of its files.
        judge: What it must answer.
        engine: The one that auto has to take.
        base: Of an adapter.
        is_converted: Whether `score` asks for a conversion first.
    """

    folder: Path
    judge: Judge
    engine: str
    base: Path | None = None
    is_converted: bool = True


def _bloom(folder: Path) -> Published:
    """RankingGPT-bloom: one pickle that also stores the head."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BloomForCausalLM

    save_tiny_bloom(folder, own_head=True)
    model = BloomForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Published(
        folder=folder,
        judge=_likelihood(
            functools.partial(tokenizer.encode, add_special_tokens=False),
            lambda ids: model(torch.tensor([ids])).logits[0],
        ),
        engine="query-rows",
        is_converted=False,
    )


def _llama2(folder: Path) -> Published:
    from sentencepiece import SentencePieceProcessor

    tensors = save_llama(folder)
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    # The same weights with q, k and v in one matrix.
    packed = {**baichuan_tensors(LLAMA), "lm_head.weight": tensors["lm_head.weight"]}
    return Published(
        folder=folder,
        judge=_likelihood(
            pieces.encode, lambda ids: baichuan_logits(LLAMA, packed, ids, norm_head=False)
        ),
        engine="query-rows",
    )


def _baichuan2(folder: Path) -> Published:
    from sentencepiece import SentencePieceProcessor

    tensors = save_baichuan(folder)
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return Published(
        folder=folder,
        judge=_likelihood(pieces.encode, lambda ids: baichuan_logits(BAICHUAN, tensors, ids)),
        engine="query-rows",
    )


def _qwen(folder: Path) -> Published:
    import tiktoken

    tensors = save_qwen(folder)
    encoding = tiktoken.Encoding(
        "Qwen",
        pat_str=QWEN_PATTERN,
        mergeable_ranks=read_tiktoken(folder / "qwen.tiktoken"),
        special_tokens={},
    )
    return Published(
        folder=folder,
        judge=_likelihood(encoding.encode, lambda ids: qwen_logits(QWEN, tensors, ids)),
        engine="query-rows",
    )


def _monobert(folder: Path) -> Published:
    from tokenizers import BertWordPieceTokenizer

    tensors = save_monobert(folder)
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    sep = tokenizer.token_to_id("[SEP]")

    def judge(query: str, document: str) -> Sequence[float]:
        ids = tokenizer.encode(query).ids[:-1][:65]
        second = tokenizer.encode(document, add_special_tokens=False).ids[: 512 - len(ids) - 2]
        logits = bert_logits(BERT, tensors, [*ids, sep, *second, sep], len(ids) + 1)
        return logits.tolist()

    return Published(folder=folder, judge=judge, engine="pooling")


def _rankllama(folder: Path) -> Published:
    from sentencepiece import SentencePieceProcessor

    base = folder.parent / "base"
    tensors, factors = save_rankllama(folder, base)
    pieces = SentencePieceProcessor(model_file=str(base / "tokenizer.model"))

    def judge(query: str, document: str) -> Sequence[float]:
        first, second = pieces.encode(f"query: {query}"), pieces.encode(f"document: {document}")
        prompt = [pieces.bos_id(), *first[:32], pieces.bos_id(), *second[:161]]
        return [rankllama_logit(LLAMA, tensors, ADAPTER, factors, prompt)]

    return Published(folder=folder, judge=judge, engine="pooling", base=base)


def _t5(config: dict[str, Any], end: str, labels: Sequence[str], folder: Path) -> Published:
    from sentencepiece import SentencePieceProcessor

    tensors = save_t5(folder, config)
    pieces = SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    # <extra_id_99> is the first id behind the pieces, <extra_id_0> the hundredth.
    extra = {f"<extra_id_{number}>": len(pieces) + 99 - number for number in range(100)}
    ids = [extra.get(label, pieces.piece_to_id(label)) for label in labels]

    def judge(query: str, document: str) -> Sequence[float]:
        before = pieces.encode(f"Query: {query} Document: {document}")
        after = [*pieces.encode(end), 1]
        logits = t5_logits(config, tensors, before[: 512 - len(after)] + after)
        return logits[ids].tolist()

    return Published(folder=folder, judge=judge, engine="encoder-decoder")


def _bge_m3(folder: Path) -> Published:
    import torch
    from transformers import XLMRobertaForSequenceClassification

    model = _save(
        folder,
        XLMRobertaForSequenceClassification,
        max_position_embeddings=514,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        num_labels=1,
    )
    encode = _save_tokenizer(folder, ("<s>", "<pad>", "</s>", "<unk>"))

    def judge(query: str, document: str) -> Sequence[float]:
        first = [0, *encode(query)[:384], 2, 2]
        ids = [*first, *encode(document)[: 512 - len(first) - 1], 2]
        return model(torch.tensor([ids])).logits[0].tolist()

    return Published(folder=folder, judge=judge, engine="pooling", is_converted=False)


def _bge_gemma(folder: Path) -> Published:
    from transformers import GemmaForCausalLM

    model = _save(folder, GemmaForCausalLM, num_key_value_heads=1, head_dim=32)
    encode = _save_tokenizer(folder, ("<pad>", "<eos>", "<bos>", "<unk>"), words=("Yes",))

    def judge(query: str, document: str) -> Sequence[float]:
        before = [2, *encode(f"A: {query}")[:384], *encode("\n")]
        after = [*encode("\n"), *encode(_BGE_GEMMA)]
        passage = encode(f"B: {document}")[: min(512, 578 - len(before) - len(after))]
        return _next_logits(model, [*before, *passage, *after], encode("Yes"))

    return Published(folder=folder, judge=judge, engine="pooling", is_converted=False)


def _qwen3_reranker(folder: Path) -> Published:
    from transformers import Qwen3ForCausalLM

    model = _save(
        folder, Qwen3ForCausalLM, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True
    )
    encode = _save_tokenizer(folder, _CHAT, words=("yes", "no"))

    def judge(query: str, document: str) -> Sequence[float]:
        asked = f"<Instruct>: {_INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
        ids = [*encode(_QWEN3[0]), *encode(asked), *encode(_QWEN3[1])]
        return _next_logits(model, ids, encode("no") + encode("yes"))

    return Published(folder=folder, judge=judge, engine="pooling", is_converted=False)


def _mxbai(folder: Path) -> Published:
    from transformers import Qwen2ForCausalLM

    model = _save(folder, Qwen2ForCausalLM, num_key_value_heads=2, tie_word_embeddings=True)
    encode = _save_tokenizer(folder, _CHAT)

    def judge(query: str, document: str) -> Sequence[float]:
        ids = [
            *(*encode(_MXBAI[0]), *encode(f"query: {query}"), *encode("\n")),
            *(*encode(f"document: {document}"), *encode("\n")),
            *(*encode(_MXBAI[1]), *encode(_MXBAI[2])),
        ]
        return _next_logits(model, ids, encode("0") + encode("1"))

    return Published(folder=folder, judge=judge, engine="pooling", is_converted=False)


_CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")

# By configuration; one of each architecture and kind of score.
SYSTEMS: dict[str, Callable[[Path], Published]] = {
    "bloom-560m": _bloom,
    "llama2-7b": _llama2,
    "baichuan2-7b": _baichuan2,
    "qwen-7b": _qwen,
    "monobert-340m": _monobert,
    "monot5-220m": functools.partial(_t5, T5, "Relevant:", ("▁false", "▁true")),
    "rankt5-770m": functools.partial(_t5, FLAN_T5, "", ("<extra_id_10>",)),
    "rankllama-7b": _rankllama,
    "bge-reranker-v2-m3": _bge_m3,
    "bge-reranker-v2-gemma": _bge_gemma,
    "qwen3-reranker-0.6b": _qwen3_reranker,
    "mxbai-rerank-base-v2": _mxbai,
}
# Configurations of other sizes.
SIBLINGS = {
    "bloom-1b1": "bloom-560m",
    "bloom-3b": "bloom-560m",
    "bloom-7b": "bloom-560m",
    "monot5-770m": "monot5-220m",
    "monot5-3b": "monot5-220m",
}


def _likelihood(encode: Encode, logits_of: Callable[[list[int]], Any]) -> Judge:
    """The model card's score: context and query are tokenised apart, without special tokens."""

    def judge(query: str, document: str) -> Sequence[float]:
        context_ids, query_ids = encode(f"Document: {document} Query:"), encode(query)
        return [query_likelihood(logits_of(context_ids + query_ids), context_ids, query_ids)]

    return judge


def _save(folder: Path, model_class: Any, **settings: Any) -> Any:
    """Save a random model of transformers in float32; logits of two prompts are some units apart.

    Heads have a size of 32: vLLM's attention on CPU takes no smaller ones.
    """
    import torch

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96}
    config = model_class.config_class(
        **{"vocab_size": 1000, "num_hidden_layers": 2, "initializer_range": 0.2, **sizes},
        **settings,
    )
    model = model_class(config).to(torch.float32).eval()
    model.save_pretrained(folder)
    return model


def _save_tokenizer(folder: Path, specials: Sequence[str], words: tuple[str, ...] = ()) -> Encode:
    """Train a byte-level BPE tokenizer in which the words are tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*demo_texts(), *words * 500], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _next_logits(model: Any, ids: Sequence[int], labels: Sequence[int]) -> Sequence[float]:
    import torch

    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1, list(labels)].tolist()


def expected_score(logits: Sequence[float]) -> float:
    """log p(relevant) of two labels; one value is the score."""
    if len(logits) == 1:
        return logits[0]
    return float(-np.logaddexp(0.0, logits[0] - logits[1]))
