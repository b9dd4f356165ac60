"""Commands that tell how good rankings are: evaluate, compare."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rgpt_batch.commands.text import LocalPath, database_options, print_facts

if TYPE_CHECKING:
    from rgpt_batch.ranking.compare import Comparison
    from rgpt_batch.ranking.evaluate import Estimate, MetricResult

_METHODS = "Intervals: percentile bootstrap over queries, 10,000 draws. p: two-sided paired t-test."


@click.command(
    epilog="Example: rgpt-batch evaluate scored/ --qrels qrels.tsv --baseline bm25.trec "
    "--metrics 'nDCG@10,AP(rel=2)'"
)
@click.argument("run", metavar="RUN|SCORED")
@click.option(
    "--qrels",
    required=True,
    type=LocalPath(exists=True, dir_okay=False),
    help="Judgements: four columns of TREC, or three of BEIR with a header.",
)
@click.option("--baseline", help="Another run or scored output to test against. [default: none]")
@click.option(
    "--metrics",
    default="nDCG@10,RR@10,R@100,AP",
    show_default=True,
    help="Names of ir_measures.",
)
@click.option(
    "--per-query",
    type=LocalPath(dir_okay=False),
    help="Write a table of every query's values, tab-separated. [default: none]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_options
def evaluate(
    run: str, qrels: str, per_query: str | None, baseline: str | None, as_json: bool, **options: Any
) -> int:
    """Evaluate a TREC run, a ranking or a scored output against relevance judgements.

    All judged queries count, as with trec_eval -c: those without results count 0.
    """
    from rgpt_batch.ranking import evaluate as evaluation
    from rgpt_batch.storage.written_files import check_output

    if per_query:
        check_output(per_query)
    found = evaluation.evaluate(run, qrels, baseline=baseline, **options)
    if per_query:
        evaluation.write_per_query(found, per_query)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "num_queries": len(found.query_ids),
                    "num_queries_without_results": found.num_queries_without_results,
                    "metrics": [asdict(result) for result in found.metrics],
                }
            )
        )
        return 0
    print_facts(
        {
            "run": run,
            **({} if baseline is None else {"baseline": baseline}),
            "queries": f"{len(found.query_ids):,} judged, "
            f"{found.num_queries_without_results:,} of them without results",
        }
    )
    click.echo()
    _print_metrics(found.metrics, ("run", "baseline"))
    return 0


@click.command(
    epilog="Example: rgpt-batch compare scored-bfloat16/ scored-float32/ --qrels qrels.tsv"
)
@click.argument("scored_a")
@click.argument("scored_b")
@click.option(
    "--qrels",
    type=LocalPath(exists=True, dir_okay=False),
    help="Judgements; adds the quality of both. [default: none]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@database_options
def compare(scored_a: str, scored_b: str, qrels: str | None, as_json: bool, **options: Any) -> int:
    """Compare two scored outputs of the same pairs: scores, order and quality."""
    from rgpt_batch.ranking import compare as comparison

    found = comparison.compare(scored_a, scored_b, qrels_file=qrels, **options)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return 0
    print_facts({"A": scored_a, "B": scored_b} | _comparison_facts(found))
    if found.quality:
        click.echo()
        _print_metrics([found.quality], ("B", "A"))
    return 0


def _comparison_facts(found: Comparison) -> dict[str, str]:
    overlap, scores, rankings = found.overlap, found.scores, found.rankings
    share = rankings.num_flips / max(1, rankings.num_document_pairs)
    tau = rankings.mean_kendall_tau
    return {
        "pairs": f"{overlap.num_shared:,} in both, {overlap.num_only_in_a:,} only in A, "
        f"{overlap.num_only_in_b:,} only in B",
        "rejected": f"{overlap.num_rejected_only_in_a:,} in A but not in B, "
        f"{overlap.num_rejected_only_in_b:,} in B but not in A",
        "B - A": f"mean {scores.mean:+.6f} over {overlap.num_scored:,} pairs scored by both",
        "|B - A|": f"mean {scores.mean_absolute:.6f}, median {scores.median_absolute:.6f}, "
        f"90 % {scores.p90_absolute:.6f}, 99 % {scores.p99_absolute:.6f}, "
        f"max {scores.max_absolute:.6f} ({scores.max_query_id}, {scores.max_doc_id})",
        "order": f"{rankings.num_flips:,} of {rankings.num_document_pairs:,} document pairs "
        f"flipped ({share:.3%}), {rankings.num_queries:,} queries",
        "Kendall tau": "none: no query has two documents" if tau is None else f"{tau:.5f}",
        "top-10": f"{rankings.mean_top_overlap:.2%} shared",
    }


def _print_metrics(results: Sequence[MetricResult], names: tuple[str, str]) -> None:
    """Print one line per metric; `names` are those of run and baseline."""
    rows = [["metric", names[0], "95 % interval"]]
    if results[0].baseline:
        rows[0] += [names[1], "95 % interval", f"{names[0]} - {names[1]}", "95 % interval", "p"]
    for result in results:
        row = [result.metric, *_cells(result.run)]
        if result.baseline and result.difference:
            row += [*_cells(result.baseline), *_cells(result.difference, "+")]
            row.append(_format_p(result.p_value))
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        click.echo("  ".join([row[0].ljust(widths[0]), *cells]))
    click.echo(f"\n{_METHODS}")


def _cells(estimate: Estimate, sign: str = "") -> list[str]:
    return [
        f"{estimate.mean:{sign}.4f}",
        f"[{estimate.low:{sign}.4f}, {estimate.high:{sign}.4f}]",
    ]


def _format_p(p_value: float | None) -> str:
    if p_value is None:
        return "-"
    return "<0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
