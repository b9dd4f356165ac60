"""Load a model with engines, one after the other; a process of its own, as vLLM reads its cache.

    python -m tests.engines.look_at_models MODEL METHOD…

Prints what each answered, and what processes that vLLM has started to look at it have found.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.engines.configs import float32_config, open_engine
from tests.engines.pairs import PAIRS


def main(model: Path, methods: list[str]) -> None:
    cache = Path(os.environ["VLLM_CACHE_ROOT"])
    for method in methods:
        with open_engine(float32_config(model, method)) as engine:
            print(method, len(engine.score(PAIRS[:2])), list(cache.glob("modelinfos/*")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
