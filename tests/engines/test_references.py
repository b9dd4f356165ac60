"""The reference engines refuse what they would compute wrongly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rgpt_batch.engines import create_engine
from rgpt_batch.errors import EngineStartError
from tests.engines.configs import float32_config
from tests.models import set_config


def test_prompts_longer_than_the_models_positions_are_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = float32_config(folder, "transformers")
    limit = config.protocol.max_tokens
    set_config(folder, max_position_embeddings=limit)
    create_engine(config).close()
    set_config(folder, max_position_embeddings=limit - 1)
    with pytest.raises(EngineStartError, match=rf"Set protocol\.max_length={limit - 1}\.$"):
        create_engine(config)


def test_stretched_positions_are_not_counted(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = float32_config(folder, "transformers")
    set_config(
        folder,
        max_position_embeddings=config.protocol.max_tokens // 2,
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
    )
    create_engine(config).close()
