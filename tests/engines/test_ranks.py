"""Models that are shared by several ranks; two on CPUs stand for two GPUs.

Each costs some 15 s of CPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.engines.judging import TOLERANCE, logits, make_case, mixed_prompts
from tests.engines.two_ranks import score_on_two_ranks
from tests.rerankers import Reranker

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "tensor") for name in ("monobert", "rankllama", "qwen2")),
        # vLLM does not split BERT by layers.
        pytest.param("rankllama", "pipeline", marks=pytest.mark.long),
        pytest.param("qwen2", "pipeline", marks=pytest.mark.long),
    ],
)
def test_two_ranks_share_a_model_that_judges_pairs(
    name: str, split: str, tmp_path: Path, tiny_monobert: Reranker, tiny_rankllama: Reranker
) -> None:
    # test_pooling.py compares one rank with the same logits, and allows as much.
    case = make_case(name, tmp_path, tiny_monobert, tiny_rankllama)
    prompts = mixed_prompts(types=case.has_types)
    config = case.config("pooling", **{f"engine.{split}_parallel_size": 2})
    found = logits(score_on_two_ranks(config, prompts))
    assert np.abs(found - case.expected(prompts)).max() <= TOLERANCE
