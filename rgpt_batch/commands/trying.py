"""The command that scores a few pairs from the command line."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from rgpt_batch.commands.engine_output import engine_output_kept
from rgpt_batch.commands.job_options import load_job_config, model_options
from rgpt_batch.errors import ConfigError

# A token's bar is as long as its logprob is low; so long at most, in nats.
_MAX_NATS = 20


@click.command(
    "try",
    short_help="Score a few pairs and show each query token's logprob.",
    epilog='Example: rgpt-batch try "when should a baby walk" "Most babies start to walk around '
    '13 months" --model models/bloom-560m',
)
@click.argument("query")
@click.argument("documents", metavar="DOCUMENT…", nargs=-1, required=True)
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each pair.")
def try_pairs(query: str, documents: tuple[str, ...], as_json: bool, **shortcuts: Any) -> int:
    """Score documents for a query; best first. A DOCUMENT of - is each line of standard input.

    Exit code 3 where a pair is rejected.
    """
    from rgpt_batch.job.scorer import Scorer

    texts = [
        line
        for document in documents
        for line in (_lines_of_standard_input() if document == "-" else [document])
    ]
    if not texts:
        raise ConfigError("standard input holds no line. Write a document on each.")
    config = load_job_config(**shortcuts)
    with engine_output_kept("try"), Scorer(config) as scorer:
        scored = scorer.score((query, text) for text in texts)
    found = sorted(
        zip(texts, scored, strict=True),
        key=lambda each: float("inf") if each[1].score is None else -each[1].score,
    )
    for text, pair in found:
        if as_json:
            facts = {"score": pair.score, "rejection": pair.rejection, "document": text}
            click.echo(json.dumps({**facts, "query_tokens": pair.query_tokens}))
            continue
        shown = pair.rejection if pair.score is None else f"{pair.score:.4f}"
        click.echo(f"{click.style(shown, bold=True)}  {text}")
        width = max((len(repr(token)) for token, _ in pair.query_tokens), default=0)
        for token, logprob in pair.query_tokens:
            bar = "▪" * round(min(_MAX_NATS, -logprob))
            click.echo(f"  {token!r:<{width}}  {logprob:8.3f}  {click.style(bar, fg='cyan')}")
    return 3 if any(pair.score is None for pair in scored) else 0


def _lines_of_standard_input() -> list[str]:
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
