"""What does a pair cost the host, beside the model's arithmetic?

    python benchmarks/host_overhead.py [--pairs 4000] [--write]

For a small model on a large GPU this is the limit. The model is a stub here: vLLM's Llama with one
small layer that it does not compute, so that what is left is the handling of requests: checking,
scheduling, building the step's inputs, reading its outputs. Every way to the score runs in a
process of its own; the figure is CPU time of all of its threads per pair, the least of three
passes, which other programs on the machine change little.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rgpt_batch.bench.hardware import hardware_name
from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines.vllm.arguments import engine_args
from rgpt_batch.engines.vllm.engine import set_environment
from rgpt_batch.planning.versions import installed_versions
from rgpt_batch.records import TokenizedPair

ROOT = Path(__file__).parent.parent
_CONTEXT_TOKENS = 82
_QUERY_TOKENS = 8
_MAX_TOKENS = 128
_NUM_PASSES = 3
_MAX_NUM_SEQS = 256
_VOCAB_SIZE = 1024
# Not ...ForCausalLM: those vLLM would look for in the plugin, from a process without the stub.
_STUB = "StubModel"

Score = Callable[[Sequence[TokenizedPair]], None]


def save_stub(folder: Path) -> Path:
    """Write the configuration of a Llama with one small layer; vLLM makes up its weights."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=_VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=4096,
    )
    config.architectures = [_STUB]
    config.save_pretrained(folder)
    return folder


def register_stub() -> None:
    """Make the stub known to vLLM."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.llama import LlamaForCausalLM

    from rgpt_batch.engines.vllm.query_rows import models

    class StubModel(LlamaForCausalLM):  # type: ignore[misc]
        def forward(
            self,
            input_ids: Any,
            positions: Any,
            intermediate_tensors: Any = None,
            inputs_embeds: Any = None,
        ) -> Any:
            return self.model.embed_tokens(input_ids)

    ModelRegistry.register_model(_STUB, StubModel)
    query_rows = models.query_rows_architecture(_STUB)
    ModelRegistry.register_model(query_rows, getattr(models, query_rows))


def stub_config(folder: Path, method: str) -> JobConfig:
    """Configure an engine for the stub."""
    return JobConfig.model_validate(
        {
            "model": {"name": str(folder), "dtype": "float32"},
            "protocol": {"max_length": _MAX_TOKENS},
            "engine": {
                "method": method,
                "kv_cache_bytes": 256 * 2**20,
                "max_num_seqs": _MAX_NUM_SEQS,
                "max_num_batched_tokens": 8192,
                "prefix_caching": False,
                "enforce_eager": True,
                "vllm_args": {"load_format": "dummy"},
            },
        }
    )


def _generate(folder: Path) -> Score:
    """LLM.generate with prompt_logprobs=0: what the documentation suggests."""
    from vllm import LLM, SamplingParams

    config = stub_config(folder, "prompt-logprobs")
    llm = LLM(**engine_args(config, max_model_len=_MAX_TOKENS + 1))
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)

    def score(pairs: Sequence[TokenizedPair]) -> None:
        prompts = [{"prompt_token_ids": pair.token_ids.tolist()} for pair in pairs]
        llm.generate(prompts, params, use_tqdm=False)

    return score


def _pooling_args(folder: Path) -> dict[str, Any]:
    from rgpt_batch.engines.vllm.query_rows import models
    from rgpt_batch.engines.vllm.query_rows.engine import QueryRowsEngine

    models.register()
    return QueryRowsEngine.arguments(stub_config(folder, "query-rows"))


def _pooling_params(pair: TokenizedPair) -> Any:
    from rgpt_batch.engines.vllm.query_rows.request import to_request

    return to_request("0", pair, read_cache=False).pooling_params


def _encode(folder: Path) -> Score:
    """LLM.encode of the pooling model."""
    from vllm import LLM

    llm = LLM(**_pooling_args(folder))

    def score(pairs: Sequence[TokenizedPair]) -> None:
        prompts = [{"prompt_token_ids": pair.token_ids[:-1].tolist()} for pair in pairs]
        params = [_pooling_params(pair) for pair in pairs]
        llm.encode(prompts, params, pooling_task="classify", use_tqdm=False)

    return score


def _add_and_step(folder: Path) -> Score:
    """LLMEngine.add_request and step of the pooling model, with a bounded window."""
    from vllm import EngineArgs, LLMEngine

    engine = LLMEngine.from_engine_args(EngineArgs(**_pooling_args(folder)))

    def score(pairs: Sequence[TokenizedPair]) -> None:
        waiting = iter(enumerate(pairs))
        num_done = num_running = 0
        while num_done < len(pairs):
            while num_running < 2 * _MAX_NUM_SEQS and (each := next(waiting, None)):
                prompt = {"prompt_token_ids": each[1].token_ids[:-1].tolist()}
                engine.add_request(str(each[0]), prompt, _pooling_params(each[1]))
                num_running += 1
            num_finished = sum(output.finished for output in engine.step())
            num_done += num_finished
            num_running -= num_finished

    return score


def _engine(method: str, folder: Path) -> Score:
    from rgpt_batch.engines import create_engine

    engine = create_engine(stub_config(folder, method))

    def score(pairs: Sequence[TokenizedPair]) -> None:
        engine.score(pairs)

    return score


WAYS: dict[str, Callable[[Path], Score]] = {
    "LLM.generate, prompt_logprobs=0": _generate,
    "engine prompt-logprobs": functools.partial(_engine, "prompt-logprobs"),
    "LLM.encode, query rows": _encode,
    "LLMEngine.add_request and step, query rows": _add_and_step,
    "engine query-rows": functools.partial(_engine, "query-rows"),
}


def make_pairs(num_pairs: int, seed: int) -> list[TokenizedPair]:
    """Draw random prompts of equal length."""
    tokens = np.random.default_rng(seed).integers(
        3, _VOCAB_SIZE, (num_pairs, _CONTEXT_TOKENS + _QUERY_TOKENS), dtype=np.int32
    )
    return [
        TokenizedPair(
            token_ids=row,
            query_start=_CONTEXT_TOKENS,
            num_document_tokens=_CONTEXT_TOKENS - 4,
            num_dropped_document_tokens=0,
        )
        for row in tokens
    ]


def measure(way: str, folder: Path, num_pairs: int) -> float:
    """Return CPU µs per pair."""
    set_environment()
    register_stub()
    score = WAYS[way](folder)
    score(make_pairs(num_pairs, 0))
    best = float("inf")
    for turn in range(1, _NUM_PASSES + 1):
        pairs = make_pairs(num_pairs, turn)
        started = time.process_time()
        score(pairs)
        best = min(best, time.process_time() - started)
    return best / num_pairs * 1e6


def main() -> None:
    """Measure every way and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help="also to benchmarks/results/")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--stub", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.stub, arguments.pairs)))
        return
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        save_stub(Path(folder))
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--stub", folder]
            command += ["--pairs", str(arguments.pairs)]
            # One thread: OpenMP's would wait for each other, and waiting counts as CPU time.
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
            found[way] = float(json.loads(done.stdout.splitlines()[-1]))
            print(f"{way}: {found[way]:,.0f} µs", file=sys.stderr)
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    baseline = next(iter(found.values()))
    lines = [
        "# Cost of a pair on the host, with a stub for a model",
        "",
        f"{time.strftime('%Y-%m-%d')}, {hardware_name()}; prompts of "
        f"{_CONTEXT_TOKENS + _QUERY_TOKENS} tokens, {_QUERY_TOKENS} of them the query's; "
        f"{arguments.pairs:,} pairs a pass, one process, one thread; {versions}.",
        "",
        "| way to the score | CPU time per pair | share of the first |",
        "|---|---:|---:|",
        *(f"| {way} | {cost:,.0f} µs | {cost / baseline:.2f} |" for way, cost in found.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.write:
        results = ROOT / "benchmarks" / "results"
        (results / f"{time.strftime('%Y-%m-%d')}-host-overhead.md").write_text(text)


if __name__ == "__main__":
    main()
