"""Small T5s for engines: converted from the published layout, with what they should say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rgpt_batch.config.options import JobConfig
from rgpt_batch.conversion.convert import convert
from rgpt_batch.records import LabelPrompt
from tests.conversion.checkpoints import save, t5_tensors
from tests.conversion.references import t5_logits
from tests.conversion.vocabularies import save_t5_model

MONOT5 = {"kind": "seq2seq", "relevant": "▁true", "not_relevant": "▁false"}
RANKT5 = {"kind": "seq2seq", "relevant": "<extra_id_10>"}


def save_t5(folder: Path, config: Mapping[str, Any]) -> Path:
    """Save a published T5's folder beside `folder`, and convert it to that."""
    source = folder.with_name(f"{folder.name}-published")
    save(source, config, t5_tensors(config), num_shards=1, legacy=True)
    save_t5_model(source / "spiece.model", vocab_size=1000)
    convert(source, folder)
    return folder


def t5_config(model: Path, score: Mapping[str, str] = MONOT5, **engine: Any) -> JobConfig:
    return JobConfig.model_validate(
        {
            "model": {"name": str(model)},
            "protocol": {
                "name": "prompt",
                "prompt": [
                    {"text": "Query: {query} Document: {document} Relevant:"},
                    {"special": "</s>"},
                ],
            },
            "score": dict(score),
            "engine": {"method": "encoder-decoder", **engine},
        }
    )


def label_prompt(num_tokens: int, seed: int = 0) -> LabelPrompt:
    ids = np.random.default_rng(seed).integers(3, 1100, num_tokens)
    return LabelPrompt(
        token_ids=ids.astype(np.int32),
        second_segment=None,
        num_query_tokens=1,
        num_dropped_query_tokens=0,
        num_document_tokens=num_tokens - 1,
        num_dropped_document_tokens=0,
    )


def expected_logits(
    config: Mapping[str, Any], prompt: LabelPrompt, labels: list[int]
) -> np.ndarray[Any, Any]:
    """The same in float32, written by hand from the architecture's description."""
    logits = t5_logits(config, t5_tensors(config), prompt.token_ids.tolist())
    return logits[labels].numpy()
