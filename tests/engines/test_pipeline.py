"""Models that two ranks share by their layers, and those that cannot be shared so.

The second rank has the last layer, the head and the answers; both have keys and values. Each start
costs some 20 s of CPU.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rgpt_batch.engines import create_engine
from rgpt_batch.errors import ConfigError
from rgpt_batch.records import TokenizedPair
from tests.engines.configs import float32_config
from tests.engines.judging import judging_config
from tests.engines.query_rows import MARGIN, MEASURED, largest_difference, reference
from tests.engines.shared_prefixes import mixed_pairs
from tests.engines.spoiled import CACHE_BYTES, spoiled_copy, spoiled_pair
from tests.engines.two_ranks import score_on_two_ranks
from tests.rerankers import Reranker

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(
    ("model", "method"),
    [
        ("tiny_llama", "query-rows"),
        ("tiny_bloom_with_head", "query-rows"),
        pytest.param("tiny_bloom", "query-rows", marks=pytest.mark.long),
        pytest.param("tiny_llama", "prompt-logprobs", marks=pytest.mark.long),
        pytest.param("tiny_bloom_with_head", "prompt-logprobs", marks=pytest.mark.long),
    ],
)
def test_two_ranks_that_follow_each_other_equal_the_reference_even_after_what_is_no_number(
    model: str, method: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = request.getfixturevalue(model)
    options: dict[str, Any] = {"pipeline_parallel_size": 2, "max_num_seqs": 4}
    folder, before = whole, list[TokenizedPair]()
    # Where the head is the embeddings, all logprobs would be spoiled.
    if model != "tiny_bloom":
        folder, before = spoiled_copy(whole, tmp_path / "model"), [spoiled_pair()]
        options["kv_cache_bytes"] = CACHE_BYTES[model]
    pairs = mixed_pairs(12, 300)
    got = score_on_two_ranks(float32_config(folder, method, **options), pairs, before=before)
    assert largest_difference(got, reference(whole, pairs)) <= MARGIN * MEASURED[model]


def without_weights(model: Path, folder: Path) -> Path:
    """Copy a model of which nothing can be loaded."""
    return Path(shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors")))


def test_a_model_that_vllm_does_not_split_by_layers_is_refused_before_it_is_loaded(
    tiny_monobert: Reranker, tmp_path: Path
) -> None:
    folder = without_weights(tiny_monobert.folder, tmp_path / "model")
    score: dict[str, Any] = {"kind": "classification", "relevant": 1, "not_relevant": 0}
    config = judging_config(
        folder, "pooling", score, types=True, **{"engine.pipeline_parallel_size": 2}
    )
    with pytest.raises(
        ConfigError,
        match=r"pipeline_parallel_size is 2, but vLLM cannot split BertForSequenceClassification "
        r"by layers\. Set engine\.pipeline_parallel_size=1; engine\.tensor_parallel_size splits",
    ):
        create_engine(config)


@pytest.mark.parametrize("method", ["auto", "prompt-logprobs"])
def test_a_model_with_fewer_layers_than_ranks_is_refused_before_it_is_loaded(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = without_weights(tiny_llama, tmp_path / "model")
    config = float32_config(folder, method, pipeline_parallel_size=3)
    with pytest.raises(ConfigError, match=r"is 3, but model .* has 2 layers\. Set it to 2 at most"):
        create_engine(config)
