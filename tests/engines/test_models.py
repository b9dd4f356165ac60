"""How vLLM gets to know the models that this project adds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.commands.start import run

pytestmark = pytest.mark.vllm


def test_no_process_is_started_to_look_at_a_model(tiny_bloom: Path, tmp_path: Path) -> None:
    # What such a process has seen vLLM keeps in modelinfos.
    methods = ("query-rows", "prompt-logprobs")
    done = run(
        [sys.executable, "-m", "tests.engines.look_at_models", tiny_bloom, *methods],
        environment={"VLLM_CACHE_ROOT": str(tmp_path)},
    )
    assert done.stdout.splitlines()[-2:] == ["query-rows 2 []", "prompt-logprobs 2 []"], done.stderr
