"""The command from scored pairs to a ranking: rank."""

from __future__ import annotations

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
    from rgpt_batch.ranking.rank import Fusion

_REJECTED = {"last": "ranked last", "drop": "left out"}


@click.command(
    epilog="Example: rgpt-batch rank scored/ --output run.trec --top-k 100 "
    "--interpolate 0.7 --first-stage-column bm25_score"
)
@click.argument("scored", nargs=-1, required=True)
@click.option("--output", required=True, type=LocalPath(), help="File to write.")
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Pairs to keep per query.",
)
@click.option(
    "--format",
    "run_format",
    type=click.Choice(["parquet", "trec"]),
    help="Of the output. [default: parquet where its name ends in .parquet, else trec]",
)
@click.option(
    "--tag",
    help="Name of a TREC run. [default: rgpt, and after a fusion how, such as "
    "rgpt-interpolate-0.5-zscore or rgpt-rrf]",
)
@click.option(
    "--score-column",
    default="score",
    show_default=True,
    help="Column to rank by, higher first; bm25_score of the pairs gives a baseline.",
)
@click.option(
    "--rejected",
    type=click.Choice(["last", "drop"]),
    default="last",
    show_default=True,
    help="Where pairs without a score go.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["error", "max"]),
    default="error",
    show_default=True,
    help="What to do about a pair with several scores; max keeps the highest.",
)
@click.option(
    "--first-stage",
    metavar="RUN|PAIRS",
    help="TREC run or Parquet with first-stage scores, joined by ids. [default: SCORED itself]",
)
@click.option(
    "--first-stage-column",
    metavar="COLUMN",
    help="Column of the first-stage scores. [default: score, if --first-stage is Parquet]",
)
@click.option(
    "--interpolate",
    type=click.FloatRange(0, 1),
    metavar="ALPHA",
    help="Rank by ALPHA x score + (1 - ALPHA) x first-stage score, both brought to one scale by "
    "--normalize. [default: off]",
)
@click.option(
    "--normalize",
    type=click.Choice(["zscore", "minmax", "none"]),
    help="What --interpolate does to both scores, per query: zscore scales to mean 0 and standard "
    "deviation 1, minmax to 0..1, none leaves nats and first-stage scores as they are. "
    "[default: zscore]",
)
@click.option(
    "--rrf",
    is_flag=True,
    help="Rank by reciprocal rank fusion with the first stage, k = 60.",
)
@click.option(
    "--below",
    metavar="RANKING",
    help="TREC run or Parquet, such as that of `score --only`: its pairs that were not scored "
    "follow below the others, in its order. [default: none]",
)
@database_options
@json_option
def rank(
    scored: tuple[str, ...],
    output: str,
    run_format: Any,
    rejected: str,
    first_stage: str | None,
    first_stage_column: str | None,
    interpolate: float | None,
    normalize: Any,
    rrf: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Rank the pairs of SCORED… (output folders, files, patterns): the top k of every query.

    Equal scores are ordered by doc_id, descending, as trec_eval does. The scores of a TREC run
    strictly decrease, so that every tool ranks it as it stands.
    """
    from rgpt_batch.ranking.rank import rank as rank_pairs

    summary = rank_pairs(
        scored,
        output,
        run_format=run_format or ("parquet" if output.endswith(".parquet") else "trec"),
        keep_rejected=rejected == "last",
        fusion=_fusion(first_stage, first_stage_column, interpolate, normalize, rrf),
        **options,
    )
    warn_of_invented(scored)
    if as_json:
        print_json({"output": output, **asdict(summary)})
        return 0
    facts = {
        "output": output,
        "ranked": f"{summary.num_ranked:,} of {summary.num_pairs:,} pairs, "
        f"{summary.num_queries:,} queries",
        "rejected": f"{summary.num_rejected:,} pairs"
        + (f", {_REJECTED[rejected]}" if summary.num_rejected else ""),
    }
    if summary.num_without_ids:
        facts["without ids"] = f"{summary.num_without_ids:,} unreadable rows left out"
    if summary.num_without_first_stage is not None:
        facts["first stage"] = f"lacks {summary.num_without_first_stage:,} pairs"
    if summary.num_below is not None:
        facts["below"] = f"{summary.num_below:,} pairs that were not scored, in the order they had"
    print_facts(facts)
    return 0


def _fusion(
    first_stage: str | None, column: str | None, alpha: float | None, normalize: Any, rrf: bool
) -> Fusion | None:
    """Check that the options of a fusion fit together."""
    from rgpt_batch.ranking.rank import DEFAULT_NORMALIZATION, FirstStage, Fusion

    if alpha is not None and rrf:
        raise click.UsageError("--interpolate and --rrf exclude each other.")
    if normalize is not None and alpha is None:
        raise click.UsageError("--normalize is for --interpolate.")
    fuses = alpha is not None or rrf
    if fuses and not (first_stage or column):
        raise click.UsageError("a fusion needs --first-stage or --first-stage-column.")
    if not fuses and (first_stage or column):
        raise click.UsageError("a first stage needs --interpolate or --rrf.")
    if not fuses:
        return None
    return Fusion(
        first_stage=FirstStage(file=first_stage, column=column),
        alpha=alpha,
        normalize=normalize or DEFAULT_NORMALIZATION,
    )
