"""fp8 weights and activations in vLLM's arithmetic: what rounding gives, and nothing else.

8-bit integers are in test_query_rows.py; which processors refuse what is in test_kernels.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.engines.references import LikelihoodReference
from tests.engines.configs import float32_config, open_engine
from tests.engines.quantised import logprobs_of_rounded, with_8_bit_layers
from tests.engines.shared_prefixes import mixed_pairs

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("method", ["query-rows", "prompt-logprobs"])
def test_fp8_layers_give_what_rounding_to_fp8_gives(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    folder = with_8_bit_layers(tiny_llama, tmp_path / "fp8", "float")
    pairs = mixed_pairs(6, 150)[:30]
    with open_engine(float32_config(folder, method)) as engine:
        got = np.concatenate([answer.values for answer in engine.score(pairs)])
    expected = np.concatenate(logprobs_of_rounded(tiny_llama, pairs, "float"))
    reference = LikelihoodReference(float32_config(tiny_llama).model)
    plain = np.concatenate([answer.values for answer in reference.score(pairs)])
    # Where a value lies between two numbers of fp8, the last bit of float32 decides: 0.005 on
    # average, one token 0.17. Rounding itself moves logprobs of random weights by 0.7 on average.
    assert np.abs(got - expected).mean() < 0.02
    assert np.abs(got - expected).max() < 0.6
    assert np.abs(got - plain).mean() > 0.3
