"""Commands that tell how good rankings are: evaluate, compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rgpt_batch.commands.text import (
    LocalPath,
    database_options,
    json_option,
    print_facts,
    print_json,
    warn_of_invented,
)

if TYPE_CHECKING:
    from rgpt_batch.ranking.compare import Comparison
    from rgpt_batch.ranking.estimates import Estimate, MetricResult
    from rgpt_batch.ranking.evaluate import Evaluation

_INTERVAL = "95 % interval"
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
    "--score-column",
    metavar="COLUMN",
    help="Column of SCORED to rank by, higher first. [default: rank where a ranking has it, else "
    "score]",
)
@click.option(
    "--baseline-score-column",
    metavar="COLUMN",
    help="The same of the baseline, such as bm25_score of the pairs. [default: as above]",
)
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
@json_option
@database_options
def evaluate(
    run: str, qrels: str, per_query: str | None, baseline: str | None, as_json: bool, **options: Any
) -> int:
    """Evaluate a TREC run, a ranking or a scored output against relevance judgements.

    All judged queries count, as with trec_eval -c: those without results count 0.
    """
    from rgpt_batch.ranking import evaluate as evaluation
    from rgpt_batch.storage.written_files import check_output

    if options["baseline_score_column"] and not baseline:
        raise click.UsageError("--baseline-score-column needs --baseline.")
    if per_query:
        check_output(per_query)
    found = evaluation.evaluate(run, qrels, baseline=baseline, **options)
    warn_of_invented([run, baseline])
    if per_query:
        evaluation.write_per_query(found, per_query)
    for line in _ties("run", found.num_tied_queries):
        click.echo(line, err=True)
    for line in _ties("baseline", found.baseline_num_tied_queries or {}):
        click.echo(line, err=True)
    if as_json:
        print_json(
            {
                "num_queries": len(found.query_ids),
                "num_queries_without_results": found.num_queries_without_results,
                "num_tied_queries": found.num_tied_queries,
                "baseline_num_tied_queries": found.baseline_num_tied_queries,
                "unjudged_fraction": found.unjudged_fraction,
                "baseline_unjudged_fraction": found.baseline_unjudged_fraction,
                "metrics": [asdict(result) for result in found.metrics],
            }
        )
        return 0
    print_facts(
        {
            "run": run,
            **({} if baseline is None else {"baseline": baseline}),
            "queries": f"{len(found.query_ids):,} judged, "
            f"{found.num_queries_without_results:,} of them without results",
            "unjudged": _unjudged(found),
        }
    )
    click.echo()
    _print_metrics(found.metrics, run="run", baseline="baseline")
    return 0


def _unjudged(found: Evaluation) -> str:
    from rgpt_batch.ranking.evaluate import NUM_TOP

    text = f"{found.unjudged_fraction:.1%} of the run's first {NUM_TOP} documents of a query"
    if found.baseline_unjudged_fraction is not None:
        text += f", {found.baseline_unjudged_fraction:.1%} of the baseline's"
    return text


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
@click.option(
    "--score-column",
    default="score",
    show_default=True,
    help="Column to compare and to rank by, higher first.",
)
@json_option
@database_options
def compare(scored_a: str, scored_b: str, qrels: str | None, as_json: bool, **options: Any) -> int:
    """Compare two scored outputs of the same pairs: scores, order and quality."""
    from rgpt_batch.ranking import compare as comparison

    found = comparison.compare(scored_a, scored_b, qrels_file=qrels, **options)
    warn_of_invented([scored_a, scored_b])
    if as_json:
        print_json(asdict(found))
        return 0
    print_facts({"A": scored_a, "B": scored_b} | _comparison_facts(found))
    if found.quality:
        click.echo()
        _print_metrics([found.quality], run="B", baseline="A", baseline_first=True)
    return 0


def _ties(name: str, num_tied: Mapping[int, int]) -> Iterator[str]:
    """Warn of values that depend on ids."""
    found = [f"{number:,} at {cut}" for cut, number in num_tied.items() if number]
    if found:
        yield (
            f"note         {name}: queries with equal scores on both sides of a metric's cut: "
            f"{', '.join(found)}. There doc_id decides, descending, as in trec_eval"
        )


def _comparison_facts(found: Comparison) -> dict[str, str]:
    overlap, scores, rankings = found.overlap, found.scores, found.rankings
    share = rankings.num_flips / max(1, rankings.num_document_pairs)
    tau = rankings.mean_kendall_tau
    is_same = scores.max_query_id is None
    place = "" if is_same else f" ({scores.max_query_id}, {scores.max_doc_id})"
    return {
        "pairs": f"{overlap.num_shared:,} in both, {overlap.num_only_in_a:,} only in A, "
        f"{overlap.num_only_in_b:,} only in B",
        "rejected": f"{overlap.num_rejected_only_in_a:,} in A but not in B, "
        f"{overlap.num_rejected_only_in_b:,} in B but not in A",
        "B - A": f"mean {scores.mean:+.6f} over {overlap.num_scored:,} pairs scored by both",
        "|B - A|": f"mean {scores.mean_absolute:.6f}, median {scores.median_absolute:.6f}, "
        f"90 % {scores.p90_absolute:.6f}, 99 % {scores.p99_absolute:.6f}, "
        f"max {scores.max_absolute:.6f}{place}",
        "order": f"{rankings.num_flips:,} of {rankings.num_document_pairs:,} document pairs "
        f"flipped ({share:.3%}), {rankings.num_queries:,} queries",
        "Kendall tau": "none: no query has two documents" if tau is None else f"{tau:.5f}",
        "top-10": f"{rankings.mean_top_overlap:.2%} shared",
    }


def _print_metrics(
    results: Sequence[MetricResult], *, run: str, baseline: str, baseline_first: bool = False
) -> None:
    """Print one line per metric.

    Args:
        results: The metrics.
        run: What to call the run.
        baseline: What to call the baseline.
        baseline_first: Whether the baseline's column comes before the run's.
    """
    names = [run, baseline] if results[0].baseline else [run]
    if baseline_first:
        names.reverse()
    rows = [["metric", *(cell for name in names for cell in (name, _INTERVAL))]]
    if results[0].baseline:
        rows[0] += [f"{run} - {baseline}", _INTERVAL, "p"]
    for result in results:
        estimates = {run: result.run, baseline: result.baseline}
        row = [result.metric]
        for name in names:
            if estimate := estimates[name]:
                row += _cells(estimate)
        if result.difference:
            row += [*_cells(result.difference, "+"), _format_p(result.p_value)]
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
