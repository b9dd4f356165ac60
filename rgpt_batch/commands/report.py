"""The command that writes a report of an output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rgpt_batch.commands.text import LocalPath, OutputFolder, price_option, print_facts
from rgpt_batch.storage.files import local_path


@click.command(
    short_help="Write a report of an output folder: HTML and Markdown.",
    epilog="Example: rgpt-batch report scored/ --qrels qrels.tsv --baseline bm25.trec "
    "--price-per-hour 2.50",
)
@click.argument("output", type=OutputFolder(exists=True, file_okay=False))
@click.option(
    "--to",
    "target",
    type=LocalPath(dir_okay=False),
    help="File to write; the Markdown summary goes beside it, unless it is a pipe or a device. "
    "Needed where OUTPUT is a URI. [default: OUTPUT/_rgpt/report.html]",
)
@click.option(
    "--qrels",
    type=click.Path(exists=True, dir_okay=False),
    help="Judgements; adds the quality of the ranking. [default: none]",
)
@click.option(
    "--baseline",
    help="Run or scored output to test against, such as the first stage's. [default: none]",
)
@click.option(
    "--baseline-score-column",
    metavar="COLUMN",
    help="Column of the baseline to rank by, higher first, such as bm25_score of the pairs. "
    "[default: rank where a ranking has it, else score]",
)
@click.option(
    "--metrics",
    default="nDCG@10,RR@10,R@100,AP",
    show_default=True,
    help="Names of ir_measures; the first one is shown query by query.",
)
@price_option
@click.option(
    "--currency", default="USD", show_default=True, help="Currency of the price, as it is shown."
)
@click.option(
    "--temp-folder",
    type=click.Path(exists=True, file_okay=False),
    help="Where to put what does not fit into memory, and copies of an output that is a URI. "
    "[default: the system's]",
)
@click.option(
    "--memory-gib",
    type=click.FloatRange(min=0.25),
    default=4.0,
    show_default=True,
    help="Memory for aggregating rows, GiB.",
)
def report(output: str, target: str | None, baseline: str | None, **options: Any) -> int:
    """Write one HTML page on the job of an output folder, and a summary in Markdown.

    The page shows speed, units per worker, scores, tokens, truncated and rejected rows, runs and
    configuration. Judgements add quality: with a baseline the queries that lose most and their
    documents, and where a first-stage score was passed through what both scores give together. The
    page needs no network. The job may be unfinished.
    """
    from rgpt_batch.output import open_store
    from rgpt_batch.report import gather, write_report
    from rgpt_batch.storage.written_files import check_output

    if baseline and not options["qrels"]:
        raise click.UsageError("--baseline needs --qrels.")
    if options["baseline_score_column"] and not baseline:
        raise click.UsageError("--baseline-score-column needs --baseline.")
    if target and Path(target).suffix == ".md":
        raise click.UsageError("--to names the HTML page; the summary takes its name with .md.")
    if not target and not local_path(output):
        raise click.UsageError("--to is needed: the page is written to this machine.")
    store = open_store(output)
    page = Path(target) if target else Path(store.location, "_rgpt", "report.html")
    check_output(page)
    found = gather(store, baseline=baseline, **options)
    summary = write_report(found, page)
    print_facts({"report": str(page)})
    if summary is not None:
        print_facts({"summary": str(summary)})
    if found.alarm:
        click.echo(f"warning      {found.alarm}", err=True)
    for note in found.notes:
        click.echo(f"note         {note}")
    return 0
