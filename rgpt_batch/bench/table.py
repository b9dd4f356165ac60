"""Findings of a benchmark run as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rgpt_batch.bench.findings import BASELINE, Findings, Result

_PIPELINE_BASELINE = "query-rows"


def to_markdown(findings: Findings, matmul_rate: float) -> str:
    """Format speeds, ratios within turns with their range, and shares of the roof.

    Args:
        findings: At least one turn of each result that is to be shown.
        matmul_rate: The machine's measured FLOP/s.
    """
    lines = [
        f"| workload | variant | pairs/s | over {BASELINE} (range) | over {_PIPELINE_BASELINE} "
        "(range) | prompt tokens/s | GFLOP/s | MFU | max score difference |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in findings.results:
        if result.turns:
            lines.append(_row(result, findings.results, matmul_rate))
    if findings.not_measured:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}: {reason}" for name, reason in findings.not_measured.items()]
    return "\n".join(lines)


def _row(result: Result, results: Sequence[Result], matmul_rate: float) -> str:
    turns = result.turns
    flops = statistics.median(turn.flops / turn.seconds for turn in turns)
    gap = result.max_score_difference
    cells = [
        result.workload.label,
        result.variant.name,
        f"{statistics.median(turn.pairs_per_second for turn in turns):,.1f}",
        _ratio(result, results, BASELINE),
        _ratio(result, results, _PIPELINE_BASELINE),
        f"{statistics.median(turn.num_tokens / turn.seconds for turn in turns):,.0f}",
        f"{flops / 1e9:,.1f}" if flops else "-",
        f"{flops / matmul_rate:.0%}" if flops else "-",
        "-" if gap is None else f"{gap:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _ratio(result: Result, results: Sequence[Result], name: str) -> str:
    """Compare speeds turn by turn: the median, and the lowest and highest."""
    for other in results:
        took_turns = (other.group, other.workload) == (result.group, result.workload)
        if took_turns and other.variant.name == name and other.turns:
            ratios = [
                mine.pairs_per_second / theirs.pairs_per_second
                for mine, theirs in zip(result.turns, other.turns, strict=False)
            ]
            return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return "-"
