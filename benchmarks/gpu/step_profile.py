"""Where the time of a step of query-rows goes, on the host and on the GPU.

    python -m benchmarks.gpu.step_profile --shape bloom-560m --to profile.md

Undisturbed first, then under Python's profiler, then under torch's.
"""

from __future__ import annotations

import argparse
import cProfile
import gzip
import io
import json
import pstats
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.tables import Table
from rgpt_batch.bench.hardware import hardware_name, has_gpu
from rgpt_batch.bench.models import random_model
from rgpt_batch.bench.workload import Workload, make_pairs, single_token_words
from rgpt_batch.config.options import JobConfig
from rgpt_batch.engines import create_engine
from rgpt_batch.records import TokenizedPair
from rgpt_batch.scoring.protocol import load_protocol
from rgpt_batch.scoring.tokenizer import load_tokenizer

_NUM_ROWS = 20
_GAPS = (0.0, 10.0, 100.0, 1000.0)
_KINDS = ("kernel", "gpu_memcpy", "gpu_memset")


class Batches:
    """Prompts of 80 + 8 tokens, new ones in every batch."""

    def __init__(self, config: JobConfig) -> None:
        self._protocol = load_protocol(config.protocol, config.model)
        self._words = single_token_words(load_tokenizer(config.model))
        self._num_made = 0

    def make(self, num_pairs: int, queries_per_document: int = 1) -> list[TokenizedPair]:
        """Make the next batch."""
        self._num_made += 1
        workload = Workload(
            document_tokens=80, query_tokens=8, queries_per_document=queries_per_document
        )
        texts = make_pairs(workload, num_pairs, self._words, seed=self._num_made)
        return [p for p in self._protocol.tokenize(texts) if isinstance(p, TokenizedPair)]


class DeviceEvent(NamedTuple):
    """A kernel or a copy; microseconds."""

    start: float
    duration: float
    name: str


def device_events(trace: Path) -> list[DeviceEvent]:
    """Read what ran on the GPU from a trace of torch's profiler, in order."""
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    return sorted(
        DeviceEvent(float(event["ts"]), float(event["dur"]), event["name"])
        for event in events
        if event.get("cat") in _KINDS and "dur" in event
    )


def describe(events: list[DeviceEvent], num_pairs: int) -> str:
    """Tell how busy the GPU was, and with what, in Markdown."""
    begin, reach, busy = events[0].start, events[0].start, 0.0
    gaps: list[float] = []
    total_of: dict[str, float] = {}
    for event in events:
        if event.start > reach:
            gaps.append(event.start - reach)
        end = event.start + event.duration
        busy += max(0.0, end - max(reach, event.start))
        reach = max(reach, end)
        total_of[event.name] = total_of.get(event.name, 0.0) + event.duration
    span = reach - begin
    lines = [
        f"GPU: {num_pairs} pairs in {span / 1e3:.1f} ms while traced; busy {busy / span:.0%}; "
        f"{len(events)} kernels and copies.",
        "",
    ]
    for low, high in zip(_GAPS, (*_GAPS[1:], float("inf")), strict=True):
        some = [gap for gap in gaps if low < gap <= high]
        lines.append(f"- {len(some)} gaps above {low:g} µs: {sum(some) / span:.1%} of the time")
    lines += ["", "| share of GPU time | kernel |", "| --- | --- |"]
    everything = sum(total_of.values())
    for name, total in sorted(total_of.items(), key=lambda each: -each[1])[:_NUM_ROWS]:
        lines.append(f"| {total / everything:.1%} | `{name[:120]}` |")
    return "\n".join(lines)


def profile_host(engine: Any, pairs: list[TokenizedPair]) -> str:
    """Return Python's functions by their own time."""
    profiler = cProfile.Profile()
    profiler.enable()
    engine.score(pairs)
    profiler.disable()
    out = io.StringIO()
    # Without folders, which are this machine's.
    pstats.Stats(profiler, stream=out).strip_dirs().sort_stats("tottime").print_stats(_NUM_ROWS)
    lines = [line[:120] for line in out.getvalue().splitlines() if line.strip()]
    return "\n".join(lines)


def profile_device(engine: Any, pairs: list[TokenizedPair], trace: Path) -> str:
    """Return what the GPU did, or, where there is none, torch's operations on the CPU."""
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU]
    if has_gpu():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        engine.score(pairs)
        if has_gpu():
            torch.cuda.synchronize()
    profiler.export_chrome_trace(str(trace))
    if events := device_events(trace):
        return describe(events, len(pairs))
    averages = profiler.key_averages()
    table = averages.table(
        sort_by="self_cpu_time_total", row_limit=_NUM_ROWS, max_name_column_width=50
    )
    return f"No GPU in the trace; operations on the CPU:\n\n```\n{table}\n```"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", default="bloom-560m")
    parser.add_argument("-o", action="append", dest="options", default=[], metavar="KEY=VALUE")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--to", type=Path, required=True, help="Markdown file")
    parser.add_argument("--num-pairs", type=int, help="per pass [default: 4000 on a GPU, else 40]")
    given = parser.parse_args()
    num_pairs = given.num_pairs or (4000 if has_gpu() else 40)
    shape, config = random_model(
        given.shape, given.cache, ("engine.method=query-rows", *given.options)
    )
    started = time.perf_counter()
    engine = create_engine(config)
    ready = time.perf_counter() - started
    batches = Batches(config)
    engine.score(batches.make(num_pairs // 4))
    table = Table(
        given.to,
        f"A step of query-rows: {given.shape}, {config.model.dtype}, {hardware_name()}",
        ("queries per document", "pairs/s", "µs per pair", "TFLOP/s"),
    )
    for queries_per_document in (1, 16):
        pairs = batches.make(num_pairs, queries_per_document)
        started = time.perf_counter()
        engine.score(pairs)
        seconds = time.perf_counter() - started
        flops = sum(shape.flops_per_score(len(p.token_ids), p.num_query_tokens) for p in pairs)
        table.add(
            queries_per_document,
            len(pairs) / seconds,
            1e6 * seconds / len(pairs),
            flops / seconds / 1e12,
        )
    table.say(f"The engine was ready after {ready:.0f} s.")
    host = profile_host(engine, batches.make(num_pairs))
    table.say(f"Host, {num_pairs} pairs, with the profiler's cost:\n\n```\n{host}\n```")
    trace = given.to.with_suffix(".trace.json.gz")
    table.say(profile_device(engine, batches.make(num_pairs // 4), trace))
    engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
