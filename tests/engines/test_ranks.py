"""Models that are shared by several ranks; two on CPUs stand for two GPUs.

Each start is two processes that import vLLM: 40 s of CPU on a machine without AVX-512.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.config.options import JobConfig
from rgpt_batch.records import LabelPrompt
from tests.engines.configs import open_engine
from tests.engines.judging import TOLERANCE, Logits, logits, make_case, mixed_prompts
from tests.rerankers import Reranker

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(
    "name", ["monobert", "rankllama", pytest.param("qwen2", marks=pytest.mark.long)]
)
def test_two_ranks_share_a_model_that_judges_pairs(
    name: str,
    tmp_path: Path,
    tiny_monobert: Reranker,
    tiny_rankllama: Reranker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # test_pooling.py compares one rank with the same logits, and allows as much.
    case = make_case(name, tmp_path, tiny_monobert, tiny_rankllama)
    prompts = mixed_prompts(types=case.has_types)
    # Else every rank wants a NUMA node. vLLM reads its environment once, hence the new process.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        config = case.config("pooling", **{"engine.tensor_parallel_size": 2})
        found = pool.submit(score_once, config, prompts).result()
    assert np.abs(found - case.expected(prompts)).max() <= TOLERANCE


def score_once(config: JobConfig, prompts: Sequence[LabelPrompt]) -> Logits:
    with open_engine(config) as engine:
        return logits(engine.score(prompts))
