"""What all engines on vLLM share: the hooks come first, and a failed step is the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rgpt_batch.engines.vllm.hooks import Hook
from rgpt_batch.engines.vllm.prompt_logprobs import PromptLogprobsEngine
from rgpt_batch.errors import EngineDead, EngineStartError
from tests.engines.configs import float32_config, open_engine
from tests.engines.pairs import PAIRS, make_pair, with_token_ids
from tests.models import VOCAB_SIZE

pytestmark = pytest.mark.vllm
pytest.importorskip("vllm")


class NeedsWhatVllmLacks(PromptLogprobsEngine):
    hooks = (Hook("vllm.sampling_params", "SamplingParams", ("max_tokens", "teleport")),)
    without_hooks = "Walk."


def test_hooks_are_looked_for_before_the_model(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError) as raised:
        NeedsWhatVllmLacks(float32_config(tmp_path / "absent"))
    assert (
        str(raised.value) == "this vLLM has no vllm.sampling_params.SamplingParams.teleport. Walk."
    )


# Each starts two engines: 20 s on two cores.
@pytest.mark.parametrize("method", ["prompt-logprobs", "query-rows"])
def test_an_engine_in_which_a_step_failed_is_dead_and_makes_room_for_another(
    method: str, tiny_llama: Path
) -> None:
    pair = make_pair(30, 4)
    token_ids = pair.token_ids.copy()
    token_ids[3] = 10 * VOCAB_SIZE
    config = float32_config(tiny_llama, method)
    with open_engine(config) as engine, pytest.raises(EngineDead, match=r"^vLLM failed: "):
        engine.score([with_token_ids(pair, token_ids)])
    with open_engine(config) as engine:
        [answer] = engine.score(PAIRS[:1])
    assert np.isfinite(answer.values).all()
