"""What a benchmark run has found, turn by turn: a Markdown file, and JSON lines beside it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rgpt_batch.bench.findings import Findings
from rgpt_batch.bench.suite import Suite
from rgpt_batch.bench.table import to_markdown
from rgpt_batch.planning.versions import installed_versions
from rgpt_batch.storage.written_files import replacing


def dated_name(hardware: str) -> str:
    """Return today's date and the hardware as the beginning of a file's name."""
    words = re.findall(r"[a-z0-9]+", hardware.lower())
    return f"{time.strftime('%Y-%m-%d')}-{'-'.join(words)}"


class Report:
    """A section per model.

    Args:
        path: The Markdown file; JSON lines are beside it. None keeps the text in memory.
        hardware: What is measured on.
    """

    def __init__(self, path: Path | None, hardware: str) -> None:
        self.text = ""
        self._path = path
        self._hardware = hardware
        self._lines: list[str] = []
        self._begun: tuple[Suite, float] | None = None
        self._sections = ""
        self._earlier_lines: list[str] = []

    def begin(self, suite: Suite, matmul_rate: float) -> None:
        """Begin a section; what it will hold comes with update().

        Args:
            suite: What is going to be measured.
            matmul_rate: The machine's measured FLOP/s.
        """
        self._sections = f"{self.text}\n" if self.text else ""
        self._earlier_lines = self._lines
        self._begun = suite, matmul_rate

    def update(self, findings: Findings) -> None:
        """Set what the section says."""
        if self._begun is None:
            raise ValueError("begin() comes before update()")
        suite, matmul_rate = self._begun
        header = _header(self._hardware, suite, matmul_rate)
        self.text = f"{self._sections}{header}\n{to_markdown(findings, matmul_rate)}\n"
        facts = {
            "hardware": self._hardware,
            "model": _name(suite),
            "dtype": suite.config.model.dtype,
        }
        records = _records(findings, facts, matmul_rate)
        self._lines = [*self._earlier_lines, *map(json.dumps, records)]
        if self._path is not None:
            lines = "".join(f"{line}\n" for line in self._lines)
            for path, text in ((self._path, self.text), (self._path.with_suffix(".jsonl"), lines)):
                with replacing(path) as staged:
                    staged.write_text(text, encoding="utf-8")


def _name(suite: Suite) -> str:
    return suite.shape.name if suite.shape else suite.config.model.name


def _records(
    findings: Findings, facts: dict[str, str], matmul_rate: float
) -> Iterator[dict[str, Any]]:
    """Yield a record per turn, and one per variant that was not measured."""
    for result in findings.results:
        workload = result.workload
        for number, turn in enumerate(result.turns, 1):
            yield {
                **facts,
                "variant": result.variant.name,
                "document_tokens": workload.document_tokens,
                "query_tokens": workload.query_tokens,
                "queries_per_document": workload.queries_per_document,
                "group": result.group,
                "turn": number,
                "num_pairs": turn.num_pairs,
                "num_tokens": turn.num_tokens,
                "seconds": turn.seconds,
                "flops": turn.flops,
                "matmul_flops_per_second": matmul_rate,
                "max_score_difference": result.max_score_difference,
            }
    for name, reason in findings.not_measured.items():
        yield {**facts, "variant": name, "not_measured": reason}


def _header(hardware: str, suite: Suite, matmul_rate: float) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    engine = suite.config.engine.model_dump(exclude_defaults=True, exclude={"vllm_args"})
    options = {**engine, **suite.config.engine.vllm_args}
    given = ", ".join(f"{name} {value}" for name, value in options.items())
    return "\n".join(
        [
            f"# Throughput: {_name(suite)}, {hardware}",
            "",
            f"{time.strftime('%Y-%m-%d')}; {suite.config.model.dtype}, queries of "
            f"{suite.workloads[0].query_tokens} tokens, documents and queries of random words. "
            f"Median of {suite.num_turns} interleaved turns of about "
            f"{suite.seconds_per_pass:g} s each, every turn with new texts; ratios are within "
            "turns. The pipeline's time leaves out the start of Ray and of the engine. MFU: FLOPs "
            "that the scores need, with nothing shared, over the measured matrix-product rate of "
            f"{matmul_rate / 1e12:.2f} TFLOP/s; more queries per document can exceed 100 %.",
            "",
            f"{versions}. Engine options: {given or 'the defaults'}.",
            "",
        ]
    )
