"""Score prompts with the encoder-decoder engine in a process that may take little more memory.

python -m tests.engines.score_with_little_memory MODEL NUM_PROMPTS NUM_TOKENS MEGABYTES
Prints the logits and the batch size in tokens that was left, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

from rgpt_batch.engines.encoder_decoder import EncoderDecoderEngine
from rgpt_batch.errors import EngineDead
from tests.engines.t5_models import label_prompt, t5_config

if __name__ == "__main__":
    model, num_prompts, num_tokens, megabytes = sys.argv[1:]
    # Each thread that allocates reserves address space of its own.
    torch.set_num_threads(1)
    # Of two lengths: where nothing is padded, attention needs no mask for each prompt.
    prompts = [label_prompt(int(num_tokens) - seed % 2, seed) for seed in range(int(num_prompts))]
    config = t5_config(Path(model), max_num_batched_tokens=len(prompts) * int(num_tokens))
    engine = EncoderDecoderEngine(config)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(megabytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        logits = [answer.values.tolist() for answer in engine.score(prompts)]
    except EngineDead as error:
        print(json.dumps({"error": str(error)}))
    else:
        print(json.dumps({"logits": logits, "max_tokens": engine.max_num_batched_tokens}))
