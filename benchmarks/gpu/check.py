"""Every engine against transformers in float32, on random models with the real sizes of heads.

    python -m benchmarks.gpu.check --shape bloom-560m --to check.md --budget 130

Models have two layers, but heads, activations and shared keys as those of the shape. In float32
engines have to agree closely; in bfloat16 only gross errors show. All engines of a model start at
the same time, each in a process of its own, and one that fails is a row that says why. Exit code 0:
all agree; token-ids, which not every vLLM has, may be missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.gpu.tables import Table
from rgpt_batch.bench.contestants import Contestant
from rgpt_batch.bench.hardware import hardware_name, has_gpu
from rgpt_batch.bench.models import random_model
from rgpt_batch.bench.variants import Variant
from rgpt_batch.bench.workload import Workload, make_pairs, single_token_words
from rgpt_batch.checks.reference import Reference, default_tolerance, deviation
from rgpt_batch.config.options import JobConfig
from rgpt_batch.errors import RgptBatchError
from rgpt_batch.records import ScorePair, TokenizedPair
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.tokenizer import load_tokenizer

SHAPES = ("bloom-560m", "llama2-7b", "qwen-7b", "smollm2-135m", "bloom-7b", "bloom-3b")
# Around the sizes of the cache's blocks, and longer than a step of the engine.
_DOCUMENT_TOKENS = (13, 27, 75, 91, 186, 407)
_QUERY_TOKENS = (1, 3, 8, 21)
_OPTIONS = (
    *("protocol.max_length=512", "engine.max_num_seqs=64", "engine.max_num_batched_tokens=256"),
    *(f"engine.kv_cache_bytes={256 * 2**20}", "engine.gpu_memory_utilization=0.05"),
    "engine.prefix_caching=true",
)
_MAY_BE_MISSING = "token-ids"
METHODS = ("query-rows", "prompt-logprobs", _MAY_BE_MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """An engine and how it computes."""

    method: str
    dtype: Literal["float32", "bfloat16"]
    is_compiled: bool

    def configure(self, config: JobConfig) -> JobConfig:
        """Return the model's configuration for this way."""
        variant = Variant(
            name=self.method, method=self.method, engine={"enforce_eager": not self.is_compiled}
        )
        return variant.configure(config.with_options({"model.dtype": self.dtype}), 1)


def ways(methods: Sequence[str]) -> Iterator[Way]:
    """Yield what this machine can compute: CPUs emulate bfloat16, and compile for minutes."""
    for method in methods:
        yield Way(method=method, dtype="float32", is_compiled=False)
        if has_gpu():
            yield Way(method=method, dtype="bfloat16", is_compiled=True)
            if method != _MAY_BE_MISSING:
                yield Way(method=method, dtype="float32", is_compiled=True)
                yield Way(method=method, dtype="bfloat16", is_compiled=False)


def make_texts(config: JobConfig) -> list[ScorePair]:
    """Draw documents and queries of many lengths; two queries share a document."""
    words = single_token_words(load_tokenizer(config.model))
    texts: list[ScorePair] = []
    for number, document in enumerate(_DOCUMENT_TOKENS):
        for query in _QUERY_TOKENS:
            workload = Workload(
                document_tokens=document, query_tokens=query, queries_per_document=2
            )
            texts += make_pairs(workload, 8, words, seed=1000 * number + query)
    return texts


def check(
    name: str, methods: Sequence[str], options: tuple[str, ...], cache: Path, table: Table
) -> bool:
    """Compare every way on one model; returns whether those that have to be there agree."""
    _, config = random_model(f"{name}-tiny", cache, (*_OPTIONS, *options))
    texts = make_texts(config)
    prompts = load_protocol(config.protocol, config.model).tokenize(texts)
    pairs = [prompt for prompt in prompts if isinstance(prompt, TokenizedPair)]
    if len(pairs) != len(texts):
        raise ValueError(f"{name}: {len(texts) - len(pairs)} of the texts made no prompt")
    started = time.monotonic()
    begun = [(way, _begin(way, config)) for way in ways(methods)]
    reference = Reference(config)
    expected = reference.values(texts, "score")
    reference.close()
    all_agree = True
    for way, contestant in begun:
        configured = way.configure(config)
        tolerance = default_tolerance(configured, expected)
        cells = (name, way.method, way.dtype, "yes" if way.is_compiled else "no")
        try:
            if isinstance(contestant, RgptBatchError):
                raise contestant
            contestant.wait_until_ready()
            ready = time.monotonic() - started
            measured = contestant.score(pairs)
        except RgptBatchError as error:
            table.add(*cells, *[None] * 5, f"not measured: {str(error).splitlines()[0]}")
            all_agree &= way.method == _MAY_BE_MISSING
        else:
            found = deviation(expected, measured.scores)
            mean = float(found.differences.mean())
            is_good = not found.too_far(tolerance) and mean <= tolerance / 4
            verdict = "agrees" if is_good else "**DIFFERS**"
            table.add(*(*cells, found.largest, mean, tolerance, ready, measured.seconds, verdict))
            all_agree &= is_good
        finally:
            if isinstance(contestant, Contestant):
                contestant.close()
    return all_agree


def _begin(way: Way, config: JobConfig) -> Contestant | RgptBatchError:
    variant = Variant(name=way.method, method=way.method)
    try:
        return Contestant(variant, way.configure(config))
    except RgptBatchError as error:
        return error


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", action="append", dest="shapes", choices=SHAPES)
    parser.add_argument("--method", action="append", dest="methods", choices=METHODS)
    parser.add_argument("-o", action="append", dest="options", default=[], metavar="KEY=VALUE")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--to", type=Path, required=True, help="Markdown file")
    parser.add_argument("--budget", type=float, default=600, help="seconds; no model begins later")
    given = parser.parse_args()
    end = time.monotonic() + given.budget
    table = Table(
        given.to,
        f"Engines against transformers in float32, {hardware_name()}",
        (
            *("model", "engine", "dtype", "compiled", "largest difference, nats"),
            *("mean difference", "allowed", "ready after, s", "scored in, s", "verdict"),
        ),
    )
    all_agree = True
    for name in given.shapes or SHAPES:
        if time.monotonic() > end:
            table.add(name, *[None] * 8, "not measured: there was no time left")
        else:
            all_agree &= check(
                name, given.methods or METHODS, tuple(given.options), given.cache, table
            )
    return 0 if all_agree else 1


if __name__ == "__main__":
    sys.exit(main())
