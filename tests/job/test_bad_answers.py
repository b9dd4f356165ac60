"""Whole jobs with a model that is broken for some texts. Two starts of a tiny engine each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from tests.engines.configs import METHODS
from tests.jobs import fake_config, score


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_row_whose_logprobs_are_no_numbers_is_rejected_and_all_others_are_scored(
    method: str, tiny_llama: Path, write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(tiny_llama, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    encode = AutoTokenizer.from_pretrained(broken).encode
    plain = {
        token for i in range(40) for token in encode(f"Document: document {i} Query: query {i}")
    }
    (spoiled, *_) = set(encode("Document: 🎉 Query:")) - plain
    weights["model.embed_tokens.weight"][spoiled] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})

    pairs = [(f"query {i}", "document 🎉" if i == 17 else f"document {i}") for i in range(40)]
    path = write_pairs(pairs, row_group_size=20)
    # Blocks of the cache are soon used again.
    options = (
        *(f"engine.method={method}", "model.dtype=float32", "units.max_rows=20"),
        *("engine.kv_cache_bytes=8388608", "engine.max_num_seqs=4", "engine.enforce_eager=true"),
    )
    found = score(fake_config(broken, *options), [path], tmp_path / "scored")
    assert found.summary.exit_code == 3
    assert found.summary.num_rejected == {"ENGINE_CRASH": 1}
    assert [row for row, why in enumerate(found.column("rejection")) if why] == [17]

    clean = score(fake_config(tiny_llama, *options), [path], tmp_path / "clean")
    expected = clean.column("score")
    assert found.column("score")[:17] == pytest.approx(expected[:17], abs=1e-5)
    assert found.column("score")[18:] == pytest.approx(expected[18:], abs=1e-5)
