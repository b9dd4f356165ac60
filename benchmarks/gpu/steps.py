"""What is checked and measured, in the order of what must not be lost."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mode = Literal["check", "bench", "rest"]

_GIB = 2**30
# Seconds that a benchmark keeps back for the turn that has begun when its budget is over.
_RESERVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One process and the two files that it writes.

    Attributes:
        command: Without --to, and without --budget where it has one.
        limit_seconds: After which it is ended.
        min_seconds: With less time left it does not begin.
        has_budget: Whether the command ends by itself in time.
        fallback_of: Left out where the step of this name has succeeded.
    """

    name: str
    command: tuple[str, ...]
    limit_seconds: float
    min_seconds: float
    has_budget: bool = True
    fallback_of: str | None = None

    def arguments(self, to: Path, seconds: float) -> tuple[str, ...]:
        """Return the whole command line for this many seconds."""
        reserve = min(_RESERVE_SECONDS, seconds / 4)
        budget = ("--budget", f"{seconds - reserve:.0f}") if self.has_budget else ()
        return (sys.executable, *self.command, "--to", str(to), *budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How steps are built.

    Attributes:
        tiny: Two-layer models and one short turn, to see on any machine that everything runs.
        cache: Folder of models.
        options: `key=value` for every engine.
        bloom_options: For Bloom's engines alone.
    """

    tiny: bool
    cache: Path
    options: tuple[str, ...] = ()
    bloom_options: tuple[str, ...] = ()
    _tiny_options: tuple[str, ...] = field(
        default=(
            f"engine.kv_cache_bytes={64 * 2**20}",
            "engine.gpu_memory_utilization=0.3",
            "engine.enforce_eager=true",
        ),
        init=False,
    )

    def steps(self, mode: Mode) -> list[Step]:
        """Return the mode's steps, most important first."""
        steps = {"check": self._check, "bench": self._bench, "rest": self._rest}[mode]()
        if self.tiny:
            # What it takes on a CPU, which others may use as well, is not known.
            return [dataclasses.replace(step, limit_seconds=math.inf) for step in steps]
        return list(steps)

    def _check(self) -> Iterator[Step]:
        yield Step(
            name="attention",
            command=("-m", "benchmarks.gpu.attention"),
            limit_seconds=90,
            min_seconds=15,
            has_budget=False,
        )
        # A name ends with its models, so that options of Bloom reach Bloom alone.
        for name, shapes in (
            ("check bloom", ("bloom-560m", "bloom-7b", "bloom-3b")),
            ("check others", ("llama2-7b", "qwen-7b", "smollm2-135m")),
        ):
            chosen = shapes[:1] if self.tiny else shapes
            options = self._options(shapes[0])
            yield Step(
                name=name,
                command=(
                    *("-m", "benchmarks.gpu.check", "--cache", str(self.cache)),
                    *(word for shape in chosen for word in ("--shape", shape)),
                    *(word for option in options for word in ("-o", option)),
                ),
                # A model takes 55 s on a machine with an H200 and 16 cores.
                limit_seconds=200,
                min_seconds=60,
            )

    def _bench(self) -> Iterator[Step]:
        standard = ("prompt-logprobs", "query-rows")
        # token-ids needs a newer vLLM than the other ways; where it is missing the table says so.
        ways = ("eval", *standard, "token-ids")
        yield self._throughput("bloom-560m", ways, cache_gib=6, limit_seconds=210)
        yield self._profile("bloom-560m")
        if not self.tiny:
            yield self._throughput("bloom-7b", standard, cache_gib=14)
        tuning = ("query-rows, no cache", "query-rows, requests") if self.tiny else ("tuning",)
        # 9 engines at once: about 6 GiB each with weights, graphs and activations.
        yield self._throughput(
            "bloom-560m", tuning, name="tuning", queries=(1,), cache_gib=2, limit_seconds=170
        )
        yield self._pipeline("ray")
        yield self._pipeline("local", fallback_of="pipeline ray")
        if not self.tiny:
            yield self._throughput("bloom-3b", standard, cache_gib=10)

    def _rest(self) -> Iterator[Step]:
        standard = ("prompt-logprobs", "query-rows")
        yield self._pipeline("local")
        yield self._throughput("llama2-7b", standard, cache_gib=14)
        yield self._throughput(
            "bloom-560m", standard, name="bloom-560m, 400 tokens", documents=400, cache_gib=6
        )

    def _options(self, shape: str) -> tuple[str, ...]:
        return self.options + (self.bloom_options if shape.startswith("bloom") else ())

    def _model(self, shape: str, cache_gib: int) -> tuple[str, ...]:
        own = self._tiny_options if self.tiny else (f"engine.kv_cache_bytes={cache_gib * _GIB}",)
        options = (*own, *self._options(shape))
        return (
            *("--shape", f"{shape}-tiny" if self.tiny else shape, "--cache", str(self.cache)),
            *(word for option in options for word in ("-o", option)),
        )

    def _throughput(
        self,
        shape: str,
        variants: tuple[str, ...],
        *,
        cache_gib: int,
        name: str | None = None,
        queries: tuple[int, ...] = (1, 16),
        documents: int = 80,
        limit_seconds: float = 150,
    ) -> Step:
        num_turns, seconds = ("1", "0.3") if self.tiny else ("3", "3")
        return Step(
            name=name or shape,
            command=(
                *("-m", "rgpt_batch", "bench", *self._model(shape, cache_gib)),
                *(word for variant in variants for word in ("--variant", variant)),
                *(word for each in queries for word in ("--queries-per-document", str(each))),
                *("--documents", str(documents), "--turns", num_turns, "--seconds", seconds),
            ),
            limit_seconds=limit_seconds,
            min_seconds=60,
        )

    def _profile(self, shape: str) -> Step:
        return Step(
            name="profile",
            command=("-m", "benchmarks.gpu.step_profile", *self._model(shape, 6)),
            limit_seconds=100,
            min_seconds=40,
            has_budget=False,
        )

    def _pipeline(self, executor: str, fallback_of: str | None = None) -> Step:
        seconds = "0.3" if self.tiny else "8"
        return Step(
            name=f"pipeline {executor}",
            command=(
                *("-m", "rgpt_batch", "bench", *self._model("bloom-560m", 6)),
                *("-o", f"executor.kind={executor}", "--variant", "pipeline"),
                *("--documents", "80", "--queries-per-document", "1"),
                *("--turns", "1", "--seconds", seconds),
            ),
            limit_seconds=130,
            min_seconds=60,
            fallback_of=fallback_of,
        )
