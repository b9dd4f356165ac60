"""Score pairs with engines on vLLM's model runner V2; run as a process of its own.

vLLM reads its environment once, and Triton has to interpret its kernels from the first import on.
Prints one line of JSON for each engine: the method that scored, how many pairs it retried, why
others were passed over.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import numpy as np

from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine
from rgpt_batch.records import TokenizedPair


def main(folder: Path) -> None:
    configs = json.loads((folder / "configs.json").read_text())
    with np.load(folder / "pairs.npz") as arrays:
        starts = arrays["starts"]
        tokens = np.split(arrays["tokens"], arrays["ends"][:-1])
    pairs = [
        TokenizedPair(
            token_ids=ids,
            query_start=int(start),
            num_document_tokens=int(start),
            num_dropped_document_tokens=0,
        )
        for ids, start in zip(tokens, starts, strict=True)
    ]
    # As in tests/conftest.py: else each engine's end takes a second.
    gc.unfreeze = lambda: None
    for name, config in configs.items():
        engine = create_engine(JobConfig.model_validate(config))
        # Interpreted kernels take a second for four pairs. What auto has chosen is asked anyway.
        some = pairs[:5] if name == "auto" else pairs
        values = np.concatenate([answer.values for answer in engine.score(some)])
        np.save(folder / f"{name}.npy", values)
        facts = {
            "name": name,
            "method": engine.method,
            "passed_over": engine.passed_over,
            "num_retries": getattr(engine, "num_retries", 0),
            "lays_out_steps": getattr(engine, "lays_out_steps", False),
        }
        engine.close()
        print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
