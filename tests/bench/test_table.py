"""The table of a benchmark run."""

from __future__ import annotations

from rgpt_batch.bench.findings import Findings, Result, Turn
from rgpt_batch.bench.table import to_markdown
from rgpt_batch.bench.variants import VARIANTS
from rgpt_batch.bench.workload import Workload

WORKLOAD = Workload(document_tokens=80, query_tokens=8, queries_per_document=1)


def result(name: str, *seconds: float) -> Result:
    turns = [Turn(num_pairs=100, num_tokens=9000, flops=1e9, seconds=s) for s in seconds]
    return Result(variant=VARIANTS[name], workload=WORKLOAD, turns=turns)


def test_ratios_are_taken_within_turns() -> None:
    # The machine is ten times slower in the second turn, for both.
    findings = Findings(
        results=[result("prompt-logprobs", 10, 100, 12), result("query-rows", 5, 25, 4)],
        not_measured={"token-ids": "needs V2"},
    )
    text = to_markdown(findings, matmul_rate=1e9)
    baseline, query_rows = (line for line in text.splitlines() if line.startswith("| 80 tokens"))
    assert "| 8.3 | 1.00 (1.00 to 1.00) | 0.33 (0.25 to 0.50) |" in baseline
    assert "| 20.0 | 3.00 (2.00 to 4.00) | 1.00 (1.00 to 1.00) |" in query_rows
    assert "| 0.2 | 20% | - |" in query_rows
    assert "- token-ids: needs V2" in text


def test_results_without_a_turn_are_left_out() -> None:
    text = to_markdown(Findings(results=[result("card")]), matmul_rate=1e9)
    assert "| card |" not in text
