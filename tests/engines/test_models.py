"""How vLLM gets to know the models that this project adds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("method", ["query-rows", "prompt-logprobs"])
def test_no_process_is_started_to_look_at_a_model(
    method: str, tiny_bloom: Path, tmp_path: Path
) -> None:
    # What such a process has seen vLLM keeps in modelinfos. One start of vLLM each, about 15 s.
    code = f"""
from pathlib import Path
from tests.engines.configs import float32_config, open_engine
from tests.engines.test_contract import PAIRS
with open_engine(float32_config(Path({str(tiny_bloom)!r}), {method!r})) as engine:
    print(len(engine.score(PAIRS[:2])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "VLLM_CACHE_ROOT": str(tmp_path)},
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["2"], done.stderr
    assert list(tmp_path.glob("modelinfos/*")) == []
