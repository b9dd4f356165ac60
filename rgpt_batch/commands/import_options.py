"""Options that the commands of `import` share, and what their help says of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rgpt_batch.commands.text import LocalPath, json_option

_Command = TypeVar("_Command", bound=Callable[..., Any])

TABLES = (
    "Parquet (file, folder or pattern, path or URI), a folder of datasets.save_to_disk, .jsonl or "
    ".tsv"
)

RULES = """\b
What all sources have in common:
  output   Parquet shards, zstd: query_id, query, doc_id, document, and first_stage_score and
           first_stage_rank where the source knows them; ordered by query_id, rank, score, doc_id,
           or with --order document by doc_id, query_id
  texts    title + ' ' + text, stripped, where a corpus has a title column, as BEIR does; all else
           is left as it is; no quoting in .tsv
  ids      strings, byte for byte: 007 is not 7; each text must be there once, and each pair
  files    text is UTF-8 (anything else is an error with its line), with or without gzip, BOM, \\r
  columns  found by their usual names, among them PyTerrier's (qid, docno, query, text), BEIR's
           (_id, title, text) and MS MARCO's (qid, pid, query, passage)
Exit codes: 0 complete, 2 wrong usage or input, 3 unknown ids and nothing written
"""


def output_options(command: _Command) -> _Command:
    """Add the options of what is written, and how."""
    for option in reversed(
        (
            click.option(
                "--output",
                required=True,
                type=LocalPath(),
                help="Folder for the shards; missing or empty. It appears when it is complete.",
            ),
            click.option(
                "--missing",
                type=click.Choice(["error", "null"]),
                default="error",
                show_default=True,
                help="What to do about pairs whose query or document is unknown: write nothing, or "
                "keep them with null text, which `score` rejects with a reason.",
            ),
            click.option(
                "--order",
                type=click.Choice(["query", "document"]),
                default="query",
                show_default=True,
                help="What rows are ordered by. By document, shards are smaller where documents "
                "have several queries, and an engine with a prefix cache reads each one once.",
            ),
            click.option(
                "--rows-per-shard",
                type=click.IntRange(min=1),
                default=100_000,
                show_default=True,
                help="Rows of an output file.",
            ),
            click.option(
                "--memory-gib",
                type=click.FloatRange(min=0.25),
                default=2.0,
                show_default=True,
                help="Memory for sorting and joining, GiB.",
            ),
            click.option(
                "--temp-folder",
                type=LocalPath(exists=True, file_okay=False),
                help="Where to put what does not fit into memory, up to the size of all texts. "
                "[default: a hidden folder beside the output]",
            ),
            click.option("--quiet", is_flag=True, help="Show no progress."),
            json_option,
        )
    ):
        command = option(command)
    return command


run_option = click.option(
    "--run",
    "run_path",
    required=True,
    type=LocalPath(exists=True, dir_okay=False),
    help="Candidates: a TREC run (query_id Q0 doc_id rank score tag) or MS MARCO's three columns "
    "(query_id doc_id rank), with tabs or blanks.",
)
