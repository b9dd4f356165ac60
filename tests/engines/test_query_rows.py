"""The query-rows engine on the CPU build of vLLM: every logprob equals the reference's.

What every engine promises is in test_contract.py, whole prompts of all kinds are in tests/golden.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rgpt_batch.engines.vllm.kernels import adds_8_bit_integers
from rgpt_batch.engines.vllm.prompt_logprobs import PromptLogprobsEngine
from rgpt_batch.engines.vllm.query_rows.engine import QueryRowsEngine
from rgpt_batch.errors import EngineStartError
from rgpt_batch.records import QueryLogprobs, TokenizedPair
from tests.engines import scheduling
from tests.engines.configs import float32_config
from tests.engines.quantised import with_8_bit_layers
from tests.engines.query_rows import MARGIN, MEASURED, largest_difference, query_rows, reference
from tests.engines.shared_prefixes import (
    BLOCK_SIZE,
    MAX_LENGTH,
    adversarial_pairs,
    mixed_pairs,
    to_pair,
)
from tests.engines.spoiled import CACHE_BYTES, spoiled_copy, spoiled_pair
from tests.engines.two_ranks import score_on_two_ranks
from tests.models import set_config

pytestmark = pytest.mark.vllm

# Tokens for 16 blocks, each 32 KiB of tiny_llama's keys and values: 12 requests do not fit.
FEW_BLOCKS = 16 * BLOCK_SIZE * 1024


def tight(scheduler: str) -> dict[str, Any]:
    """Settings under which prompts are computed in pieces, evicted and computed again."""
    return {
        "kv_cache_bytes": FEW_BLOCKS,
        "max_num_seqs": 12,
        "max_num_batched_tokens": 160,
        "vllm_args": {
            "block_size": BLOCK_SIZE,
            "max_model_len": MAX_LENGTH,
            "long_prefill_token_threshold": 48,
            "scheduler_reserve_full_isl": False,
            "scheduler_cls": scheduler,
        },
    }


@pytest.mark.parametrize("model", MEASURED)
def test_logprobs_equal_the_reference(model: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    # SmolLM2 is of ordinary size, and slow.
    pairs = mixed_pairs(4, 60) if model == "smollm2" else mixed_pairs(12, 300)
    expected = reference(folder, pairs)
    # Prompts that do not fit into one step are requests of vLLM's scheduler.
    for step_tokens in (96, 2048):
        with query_rows(float32_config(folder, max_num_batched_tokens=step_tokens)) as engine:
            assert engine.lays_out_steps == (step_tokens > 96)
            got = engine.score(pairs)
            assert engine.num_retries == 0
        assert largest_difference(got, expected) <= MARGIN * MEASURED[model]


@pytest.fixture(
    scope="module",
    params=[30, pytest.param(200, marks=pytest.mark.long)],
    ids=lambda number: f"{number} documents",
)
def adversarial(
    tiny_llama: Path, request: pytest.FixtureRequest
) -> tuple[list[TokenizedPair], list[QueryLogprobs]]:
    """Pairs, and the reference's answers."""
    pairs = adversarial_pairs(request.param)
    return pairs, reference(tiny_llama, pairs)


def test_shared_prefixes_hide_no_row_in_a_cache_that_overflows(
    tiny_llama: Path, adversarial: tuple[list[TokenizedPair], list[QueryLogprobs]]
) -> None:
    pairs, expected = adversarial
    scheduling.reset()
    with query_rows(float32_config(tiny_llama, **tight(scheduling.CAPPED))) as engine:
        got = engine.score(pairs)
        assert engine.num_retries == 0
        assert scheduling.num_preemptions() > 0
    assert largest_difference(got, expected) <= MARGIN * MEASURED["tiny_llama"]


def test_rows_that_the_cache_hides_are_noticed_and_computed(
    tiny_llama: Path, adversarial: tuple[list[TokenizedPair], list[QueryLogprobs]]
) -> None:
    pairs, expected = adversarial
    scheduling.reset()
    with query_rows(float32_config(tiny_llama, **tight(scheduling.UNCAPPED))) as engine:
        got = engine.score(pairs)
        # Nothing else keeps the test above from being true of any engine.
        assert engine.num_retries > len(pairs) // 4
        assert scheduling.num_preemptions() > 0
    assert largest_difference(got, expected) <= MARGIN * MEASURED["tiny_llama"]


def test_prefixes_stay_in_the_cache_between_calls(
    tiny_llama: Path, adversarial: tuple[list[TokenizedPair], list[QueryLogprobs]]
) -> None:
    pairs, expected = adversarial
    # Asks for vLLM's scheduler, and so for its cache.
    settings: dict[str, Any] = {"vllm_args": {"async_scheduling": False}}
    with query_rows(float32_config(tiny_llama, max_num_batched_tokens=2048, **settings)) as engine:
        assert not engine.lays_out_steps
        for _ in range(2):
            got = engine.score(pairs[:300])
            assert largest_difference(got, expected[:300]) <= MARGIN * MEASURED["tiny_llama"]
        assert engine.num_retries == 0


def test_steps_share_blocks_in_a_cache_that_holds_few_prompts(
    tiny_llama: Path, adversarial: tuple[list[TokenizedPair], list[QueryLogprobs]]
) -> None:
    pairs, expected = adversarial
    settings = {**tight(""), "max_num_batched_tokens": MAX_LENGTH}
    settings["vllm_args"] = {"block_size": BLOCK_SIZE, "max_model_len": MAX_LENGTH}
    with query_rows(float32_config(tiny_llama, **settings)) as engine:
        assert engine.lays_out_steps
        for _ in range(2):
            got = engine.score(pairs)
            assert largest_difference(got, expected) <= MARGIN * MEASURED["tiny_llama"]
        num_tokens = 2 * sum(len(pair.token_ids) for pair in pairs)
        # A document's whole blocks, for all of its pairs that fit into a step but the first.
        assert num_tokens // 4 < engine.num_cached_tokens < num_tokens


@pytest.mark.parametrize("max_num_batched_tokens", [96, 2048])
def test_a_short_document_is_computed_once_for_its_queries(
    tiny_llama: Path, max_num_batched_tokens: int
) -> None:
    rng = np.random.default_rng(5)
    document = rng.integers(3, 1000, 83)
    pairs = [to_pair(document, rng.integers(3, 1000, 8)) for _ in range(16)]
    config = float32_config(
        tiny_llama,
        max_num_batched_tokens=max_num_batched_tokens,
        vllm_args={"scheduler_cls": scheduling.CAPPED},
    )
    with query_rows(config) as engine:
        scheduling.reset()
        engine.score(pairs)
    # All but the last, incomplete block of the document.
    assert scheduling.num_computed_tokens() < 83 + 16 * (32 + 8)


def test_logprobs_without_prefix_caching(
    tiny_llama: Path, adversarial: tuple[list[TokenizedPair], list[QueryLogprobs]]
) -> None:
    pairs, expected = adversarial
    with query_rows(float32_config(tiny_llama, prefix_caching=False)) as engine:
        got = engine.score(pairs[:300])
        assert engine.num_retries == 0
    assert largest_difference(got, expected[:300]) <= MARGIN * MEASURED["tiny_llama"]


def test_two_ranks_share_a_model_even_after_what_is_no_number(
    tiny_bloom_with_head: Path, tmp_path: Path
) -> None:
    # Ranks that follow each other are in test_pipeline.py.
    pairs = mixed_pairs(12, 300)
    config = float32_config(
        spoiled_copy(tiny_bloom_with_head, tmp_path / "model"),
        tensor_parallel_size=2,
        max_num_seqs=4,
        max_num_batched_tokens=512,
        kv_cache_bytes=CACHE_BYTES["tiny_bloom_with_head"],
    )
    got = score_on_two_ranks(config, pairs, before=[spoiled_pair()])
    expected = reference(tiny_bloom_with_head, pairs)
    assert largest_difference(got, expected) <= MARGIN * MEASURED["tiny_bloom_with_head"]


def test_a_quantised_model_gives_what_prompt_logprobs_give(
    tiny_llama: Path, tmp_path: Path
) -> None:
    if not adds_8_bit_integers():
        pytest.skip("this processor has no VNNI: refused, see test_kernels.py")
    folder = with_8_bit_layers(tiny_llama, tmp_path / "w8a8")
    pairs = mixed_pairs(12, 300)
    plain = PromptLogprobsEngine(float32_config(folder))
    expected = plain.score(pairs)
    plain.close()
    with query_rows(float32_config(folder)) as engine:
        got = engine.score(pairs)
    assert largest_difference(got, expected) <= MARGIN * MEASURED["tiny_llama"]
    assert largest_difference(got, reference(tiny_llama, pairs)) > 0.01


def test_a_model_that_is_no_causal_language_model_is_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "classifier")
    set_config(folder, architectures=["LlamaForSequenceClassification"])
    with pytest.raises(EngineStartError, match="knows no causal language model Llama"):
        QueryRowsEngine(float32_config(folder))
