"""The throughput benchmark: every way to the score, on this machine, in one command.

    python benchmarks/throughput.py --shape smollm2-135m
    python benchmarks/throughput.py --shape bloom-560m --documents 80

Weights are random, so nothing is downloaded; texts are made of the demo's words. On a CUDA machine
the same command measures the GPU. The table goes to standard output and to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

from rgpt_batch.bench.shapes import SHAPES, save_random_model
from rgpt_batch.bench.suite import PIPELINE, matmul_flops_per_second, run_suite, to_table
from rgpt_batch.bench.workload import Workload
from rgpt_batch.config import load_config

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache"
METHODS = ("card", "eval", "prompt-logprobs", PIPELINE)


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=list(SHAPES), default="smollm2-135m")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--pairs", type=int, default=192, help="per workload [192]")
    parser.add_argument("--documents", type=int, nargs="+", default=[80, 400], help="tokens")
    parser.add_argument("--queries-per-document", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("-o", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    shape = SHAPES[arguments.shape]
    tokenizer = CACHE / "smollm2-135m"
    folder = save_random_model(shape, CACHE / f"random-{shape.name}", tokenizer)
    config = load_config(
        None,
        (
            f"model.name={folder}",
            "model.dtype=bfloat16",
            "protocol.max_length=1024",
            *arguments.overrides,
        ),
    )
    words = [
        word
        for line in (ROOT / "demo" / "source.jsonl").read_text(encoding="utf-8").splitlines()
        for candidate in json.loads(line)["candidates"]
        for word in candidate["document"].split()
    ]
    workloads = [
        Workload(
            num_pairs=arguments.pairs, document_tokens=length, queries_per_document=num_queries
        )
        for length in arguments.documents
        for num_queries in arguments.queries_per_document
    ]
    matmul_rate = matmul_flops_per_second()
    results = run_suite(
        config, shape, arguments.methods, workloads, words, arguments.turns, say=print
    )
    hardware = hardware_name()
    table = "\n".join(
        [
            f"# Throughput: {shape.name}, {hardware}",
            "",
            f"{time.strftime('%Y-%m-%d')}; random weights in bfloat16, {arguments.pairs} pairs per "
            f"workload, queries of about 8 tokens, median of {arguments.turns} interleaved turns. "
            f"Measured matrix-product rate: {matmul_rate / 1e12:.2f} TFLOP/s.",
            "",
            to_table(results, matmul_rate),
            "",
        ]
    )
    print(table)
    name = f"{time.strftime('%Y-%m-%d')}-{hardware.replace(' ', '-').lower()}-{shape.name}.md"
    results_folder = ROOT / "benchmarks" / "results"
    results_folder.mkdir(exist_ok=True)
    (results_folder / name).write_text(table, encoding="utf-8")


def hardware_name() -> str:
    """Name the device that is measured."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{os.cpu_count()} CPU cores {platform.machine()}"


if __name__ == "__main__":
    main()
