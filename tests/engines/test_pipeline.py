"""Models that two ranks share by their layers, and those that cannot be shared so.

The second rank has the last layer, the head and the answers; both have keys and values. Each start
is two processes that import vLLM: some 50 s of CPU on a machine without AVX-512.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rgpt_batch.engines import create_engine
from rgpt_batch.errors import ConfigError
from rgpt_batch.records import TokenizedPair
from tests.engines.configs import MAX_LENGTH, float32_config
from tests.engines.judging import TOLERANCE, judging_config, logits, make_case, mixed_prompts
from tests.engines.query_rows import MARGIN, MEASURED, largest_difference, reference
from tests.engines.shared_prefixes import BLOCK_SIZE, mixed_pairs, to_pair
from tests.engines.two_ranks import score_on_two_ranks
from tests.rerankers import Reranker

pytestmark = pytest.mark.vllm

EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight")
# No pair of shared_prefixes has it.
SPOILED = 2
# For one prompt of full length, and vLLM's own: the next prompts get what it had.
NUM_BLOCKS = MAX_LENGTH // BLOCK_SIZE + 2
# Keys and values of a token in one layer, bytes.
TOKEN_BYTES = {"tiny_llama": 2 * 2 * 32 * 4, "tiny_bloom": 2 * 4 * 32 * 4}


def spoiled_copy(model: Path, folder: Path) -> Path:
    """Copy a model, with an embedding that is no number."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    (embeddings,) = (name for name in tensors if name.endswith(EMBEDDINGS))
    tensors[embeddings][SPOILED] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def spoiled_pair() -> TokenizedPair:
    """A pair that fills the cache with what is no number."""
    return to_pair(np.full(MAX_LENGTH - 8, SPOILED), np.arange(10, 18))


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
    # Where the head is the embeddings, all logprobs would be spoiled.
    is_tied = model == "tiny_bloom"
    folder = whole if is_tied else spoiled_copy(whole, tmp_path / "model")
    cache = NUM_BLOCKS * BLOCK_SIZE * TOKEN_BYTES[model.removesuffix("_with_head")]
    config = float32_config(
        folder, method, pipeline_parallel_size=2, max_num_seqs=4, kv_cache_bytes=cache
    )
    pairs = mixed_pairs(12, 300)
    got = score_on_two_ranks(config, pairs, before=() if is_tied else [spoiled_pair()])
    assert largest_difference(got, reference(whole, pairs)) <= MARGIN * MEASURED[model]


@pytest.mark.long
@pytest.mark.parametrize("name", ["rankllama", "qwen2"])
def test_two_ranks_that_follow_each_other_judge_pairs(
    name: str, tmp_path: Path, tiny_monobert: Reranker, tiny_rankllama: Reranker
) -> None:
    case = make_case(name, tmp_path, tiny_monobert, tiny_rankllama)
    prompts = mixed_prompts(types=case.has_types)
    config = case.config("pooling", **{"engine.pipeline_parallel_size": 2})
    found = logits(score_on_two_ranks(config, prompts))
    assert np.abs(found - case.expected(prompts)).max() <= TOLERANCE


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
