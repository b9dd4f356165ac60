"""How vLLM gets to know the models that this project adds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.vllm


def test_no_process_is_started_to_look_at_a_model(tiny_bloom: Path, tmp_path: Path) -> None:
    # What such a process has seen vLLM keeps in modelinfos. Costs 15 to 30 s.
    code = f"""
from pathlib import Path
from tests.engines.configs import float32_config, open_engine
from tests.engines.pairs import PAIRS
model, cache = Path({str(tiny_bloom)!r}), Path({str(tmp_path)!r})
for method in ("query-rows", "prompt-logprobs"):
    with open_engine(float32_config(model, method)) as engine:
        print(method, len(engine.score(PAIRS[:2])), list(cache.glob("modelinfos/*")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "VLLM_CACHE_ROOT": str(tmp_path)},
        check=False,
    )
    assert done.stdout.splitlines()[-2:] == ["query-rows 2 []", "prompt-logprobs 2 []"], done.stderr
